"""`S4D`: the layer around a diagonal state space."""

from __future__ import annotations

from longwave.nn.conv_glu import ConvGLU
from longwave.nn.long_conv import LongConvOp
from longwave.nn.state_space import StateSpaceConv1d
from longwave.ops.long_conv import long_conv


class S4D(ConvGLU):
    """A sequence mixer: a state space for each channel, GELU, and a gated linear map that mixes channels.

        y = GLU(W · GELU(conv(u) + D u) + b)

    Args:
        d_model: channels of input and result.
        state: N, the size of a state space.
        two_sided: a second filter over what comes after.
        backend: the convolution's backend; `auto` chooses.
        conv: the operator to call; a replacement keeps the signature of `longwave.long_conv`.
        taps: as in `StateSpaceConv1d`.
        filter_options: keywords of `StateSpaceFilter`.

    Raises:
        ArgumentError: a size or name out of range.

    Source: Gu et al. 2022 (arXiv 2206.11893); the layer around the state space is that of S4 (arXiv 2111.00396).
    """

    def __init__(
        self,
        d_model: int,
        state: int = 64,
        *,
        two_sided: bool = False,
        backend: str = "auto",
        conv: LongConvOp = long_conv,
        taps: int | None = None,
        **filter_options: str | float,
    ) -> None:
        long = StateSpaceConv1d(
            d_model, state, two_sided=two_sided, backend=backend, conv=conv, taps=taps, **filter_options  # type: ignore[arg-type]
        )  # fmt: skip
        super().__init__(d_model, long)
