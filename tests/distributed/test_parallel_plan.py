"""The plan of a convolution over ranks: bytes counted by hand, the choice between the two ways, and what it says."""

from __future__ import annotations

import pytest
import torch

from longwave import distributed
from longwave.cli import main
from longwave.errors import ArgumentError
from longwave.masks import FrequencyMask


def test_bytes_are_those_of_the_samples_that_move() -> None:
    p = distributed.plan((2, 8, 1000), (8, 1000), ranks=4)
    # A rank gets 2 of 8 channels of 750 samples, and gives back 6 channels of 250; two rows, four bytes.
    assert p.choice.received["all_to_all"] == (2 * 4 * (2 * 750 + 6 * 250),) * 4
    # The last rank gets the 750 samples before its own, of all channels.
    assert p.choice.received["halo"] == tuple(2 * 8 * 4 * n for n in (0, 250, 500, 750))
    assert p.choice.method == "all_to_all"
    assert p.bytes_sent == 24_000


def test_the_method_is_that_of_fewer_bytes() -> None:
    short, long = (distributed.plan((1, 8, 4096), (8, K), ranks=4) for K in (65, 4096))
    assert (short.choice.method, long.choice.method) == ("halo", "all_to_all")
    assert short.bytes_sent == 8 * 64 * 4
    assert "the fewer bytes: " in long.choice.why
    masked = distributed.plan((1, 8, 64), (8, 3), ranks=4, mode="circular", frequency_mask=FrequencyMask.lowpass(0.5))
    assert masked.choice.method == "all_to_all"
    assert "reaches the whole sequence" in masked.choice.why


def test_gates_travel_where_their_product_would_be_as_wide() -> None:
    wide, narrow = (
        distributed.plan((1, 8, 1024), (8, 1024), ranks=2, pregate=True, postgate=True, dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert wide.bytes_sent == 4 * 2 * 4 * 512
    assert narrow.bytes_sent == 2 * 4 * 4 * 512


def test_documents_and_spans_bound_what_is_fetched() -> None:
    p = distributed.plan((1, 2, 100), (2, 30), ranks=[40, 0, 60], cu_seqlens=[0, 35, 100], method="halo")
    assert p.choice.received["halo"] == (0, 0, 2 * 4 * 5)


@pytest.mark.parametrize("taps", [1, 2])
def test_documents_keep_lags_on_both_sides_from_halos(taps: int) -> None:
    p = distributed.plan((1, 2, 100), (2, 3), ranks=4, cu_seqlens=[0, 35, 100], k_rev_shape=(2, taps))
    assert p.choice.method == "all_to_all"
    assert "would cross from document to document" in p.choice.why


def test_long_transfers_go_in_chunks() -> None:
    assert distributed.plan((1, 256, 2**16), (256, 2**16), ranks=2).choice.chunks == 4
    assert distributed.plan((1, 8, 4096), (8, 4096), ranks=2).choice.chunks == 1


def test_times_are_those_of_bytes_and_of_work() -> None:
    p = distributed.plan((1, 256, 2**20), (256, 2**20), ranks=8, device="h200", interconnect_gb_s=100)
    assert p.choice.chunks == 4
    assert p.communication_ms == pytest.approx(1e3 * p.bytes_sent / 100e9)
    moving, convolving = p.communication_ms, p.local.predicted_ms
    assert convolving is not None
    assert moving > convolving  # of the shorter a chunk of four is not hidden
    assert p.forward_ms == pytest.approx(moving + convolving / 4)
    assert p.step_ms == pytest.approx(max(2 * moving, 3 * convolving) + min(2 * moving, 3 * convolving) / 4)


def test_refusals() -> None:
    with pytest.raises(ArgumentError, match=r"spans of \(3, 4\), which are not 8 samples"):
        distributed.plan((1, 2, 8), (2, 8), ranks=[3, 4])
    with pytest.raises(ArgumentError, match="ranks is 0"):
        distributed.plan((1, 2, 8), (2, 8), ranks=0)
    with pytest.raises(ArgumentError, match="interconnect_gb_s is -1"):
        distributed.plan((1, 2, 8), (2, 8), ranks=2, interconnect_gb_s=-1)
    with pytest.raises(ArgumentError, match="method='ring' is unknown"):
        distributed.plan((1, 2, 8), (2, 8), ranks=2, method="ring")


def test_the_command_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["-H", "256", "-L", "16777216", "--pregate", "--postgate", "--dtype", "bfloat16", "--device", "h200"]
    assert main(["plan", "--ranks", "64", "--interconnect", "450", *options]) == 0
    said = capsys.readouterr().out
    for words in ("over 64 ranks", "all_to_all, in 4 chunks", "at 450 GB/s", "16 GiB filters", "a model of the NVIDIA H200"):
        assert words in said
    assert main(["plan", "--ranks", "0", *options]) == 2
    assert "give how many there are" in capsys.readouterr().err
