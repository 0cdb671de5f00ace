"""What a Problem's transforms are on the device: spectra of filters, convolutions, gradients of filters.

Rows that fit in registers go all at once; split ones some at a time, so that scratch memory is bounded.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from longwave import dtypes, taps
from longwave.backends.triton import fused, launch_table, split
from longwave.backends.triton.blocks import (
    Block,
    blocks,
    channel_blocks,
    energy_spans,
    group_blocks,
    headroom,
    in_flight,
)
from longwave.backends.triton.configurations import (
    CHAIN,
    CHANNELS,
    ENERGY_SPAN,
    L2_PROGRAMS,
    SPAN,
    TILE,
    columns,
    constants,
    outer_constants,
)
from longwave.backends.triton.launch_table import Key
from longwave.backends.triton.layouts import Layout, is_wide
from longwave.backends.triton.tables import gain_of, outer, tables
from longwave.backends.triton.words import Filters, Place, Results, Rows, Signal, View
from longwave.operands import Operands
from longwave.problem import Problem

# Programs that keep a large GPU busy, and the most turns that one takes.
PROGRAMS, TURNS = 2048, 16

NO_FILTERS = Filters(None, None, 1, 0)


class Apart(NamedTuple):
    """Split rows (rows, 2 planes, N), and by what their results are to be multiplied, or None."""

    z: Tensor
    back: Tensor | None


class Side(NamedTuple):
    """A signal or results, where they stand in the ring, and whether in its second plane too."""

    of: Any
    place: Place
    upper: bool


def operand(p: Problem) -> torch.dtype:
    """What tensor cores multiply: 16-bit signals as they are, unless precision is "high"."""
    return torch.float32 if is_wide(p) else dtypes.named(p.dtype)


def there_and_back(p: Problem, at: Layout) -> float:
    """The factor that a transform there and back has, or the product of two spectra, by what its matrices are rounded with."""
    return gain_of(at.outer, at.shape, operand(p)) ** 2


def view(x: Any) -> Any:
    """Of a tensor (B, H, ·), or None of None."""
    return None if x is None else View(x, *x.stride())


def _filter_view(k: Tensor) -> View:
    """Of filters (G, K) or (B, G, K)."""
    return View(k, *k.stride()) if k.dim() == 3 else View(k, 0, *k.stride())


class Transform:
    """The launches of one Problem's transforms with operands of `kind`, times `gain` each way."""

    def __init__(self, at: Layout, kind: torch.dtype, device: torch.device, gain: float = 1.0) -> None:
        self.at, self.kind, self.device = at, kind, device
        self.tables = tables(at.shape, not at.outer, kind, device, 1.0 if at.outer else gain)
        self.outer, length = [], at.N
        for i, bins in enumerate(at.outer):
            length //= bins
            self.outer.append(outer(bins, length, columns(kind), i == 0, kind, device, 1.0 if i else gain))

    def run(
        self, kernel: Any, name: str, grid: tuple[int, ...], *arguments: Any, planes: int = 1, gated: bool = False, **more: Any
    ) -> None:
        """A kernel of `fused` on rows in registers; those of split rows have a name, and launches, of their own."""
        shape = self.at.shape
        key = Key.of(f"{name}_split" if self.at.outer else name, self.kind, shape, planes, gated)
        launch_table.start(kernel, grid, key, self.device, *arguments, **more, **constants(shape, self.kind))

    def scratch(self, rows: int) -> Tensor:
        return torch.empty(rows, 2, self.at.N, dtype=self.kind, device=self.device)

    def powers(self, side: Side, rows: Rows) -> tuple[Tensor | None, Tensor | None]:
        """What split rows of float16 are multiplied by, and their results."""
        if self.kind != torch.float16:
            return None, None
        count, spans = rows.across * rows.turns, energy_spans(self.at.N, side.upper)
        partial = torch.empty(count, spans, dtype=torch.int32, device=self.device)
        down, back = (torch.empty(count, dtype=torch.float32, device=self.device) for _ in range(2))
        launch_table.start(
            split.row_energies, (count * spans,), Key("row_energies"), self.device, side.of, side.place, partial, rows, spans,
            SPAN=ENERGY_SPAN, TILE=TILE, LOG_TILE=TILE.bit_length() - 1,
        )  # fmt: skip
        launch_table.start(
            split.row_powers_of_energies, (count,), Key("row_powers_of_energies"), self.device, partial, down, back, spans,
            headroom(spans), TILE=TILE,
        )  # fmt: skip
        return down, back

    def apart(self, side: Side, rows: Rows) -> Apart:
        """The rows of a signal, split."""
        count = rows.across * rows.turns
        down, back = self.powers(side, rows)
        z: Tensor | None = None
        above, length = 1, self.at.N
        for bins, table in zip(self.at.outer, self.outer, strict=True):
            length //= bins
            into, tile = self.scratch(count), columns(self.kind)
            grid = (count * above * (length // tile), -(-bins // outer_constants(bins, self.kind)["K"]))
            launch_table.start(
                split.outer_forward, grid, Key.of("outer_forward", self.kind, bins), self.device, side.of, side.place,
                down if z is None else None, z, into, table, rows, above, self.at.N, length // tile,
                UPPER=side.upper or z is not None, **outer_constants(bins, self.kind),
            )  # fmt: skip
            z, above = into, above * bins
        if z is None:
            raise RuntimeError("a transform in registers was to be taken apart")
        return Apart(z, back)

    def together(
        self, z: Tensor, side: Side, rows: Rows, beside: Side | None = None, back: Tensor | None = None,
        filters: Filters = NO_FILTERS,
    ) -> None:  # fmt: skip
        """The results from split rows; `beside`: the signal that D is applied to."""
        count = rows.across * rows.turns
        above, length = math.prod(self.at.outer), self.at.shape.N
        for bins, table in zip(reversed(self.at.outer), reversed(self.outer), strict=True):
            above //= bins
            into: Any = self.scratch(count) if above > 1 else None
            tile = columns(self.kind)
            signal, source = (None, side.place) if beside is None else beside[:2]
            grid = (count * above * (length // tile), -(-bins // outer_constants(bins, self.kind)["K"]))
            launch_table.start(
                split.outer_backward, grid, Key.of("outer_backward", self.kind, bins), self.device, z, into, signal, source,
                side.of, side.place, None if above > 1 else back, filters, table, rows, above, self.at.N, length // tile,
                UPPER=side.upper or above > 1, **outer_constants(bins, self.kind),
            )  # fmt: skip
            z, length = into, length * bins

    def in_l2(self, source: Side, target: Side, rows: Rows, filters: Filters, conj: bool) -> None:
        """All of them, through scratch memory that stays in the second-level cache."""
        (bins,), (table,), tile, shape = self.at.outer, self.outer, columns(self.kind), self.at.shape
        programs = min(rows.across * rows.turns, L2_PROGRAMS)
        down, back = self.powers(source, rows)
        z, z_back = self.scratch(programs), self.scratch(programs)
        launch_table.start(
            split.convolve_in_l2, (programs,), Key.of("convolve_in_l2", self.kind, shape), self.device, source.of, source.place,
            down, target.of, target.place, back, z, z_back, filters, table, self.tables, rows,
            rows._replace(across=rows.across * bins, parts=bins), self.at.N, shape.N // tile, UPPER_IN=source.upper,
            UPPER_OUT=target.upper, CONJ=conj, **(outer_constants(bins, self.kind) | constants(shape, self.kind)),
        )  # fmt: skip


def spectra(p: Problem, at: Layout, k: Tensor, block: Block | None = None) -> Filters:
    """Of the filters of some channels and samples, or of all, in the order of `fused`; with powers of two for 16 bits."""
    repeats = p.channels // p.groups
    channel, channels, sample, samples = block or Block(0, p.channels, 0, p.batch)
    group, groups = channel // repeats, -(-channels // repeats)
    sample, samples, step = (sample, samples, groups) if p.per_sample else (0, 1, 0)
    first = sample * step + group
    transform = Transform(at, torch.float32, k.device, math.sqrt(at.N))
    side = Side(Signal(_filter_view(k)), at.filter, at.filter_upper)
    rows = Rows(groups, samples, 1, sample, group, 1)
    z = transform.apart(side, rows).z if at.outer else None
    found = torch.empty(samples * groups, 2 * at.N, dtype=torch.float32, device=k.device)
    transform.run(
        fused.analyse, "analyse", (samples * -(-groups * at.parts // at.shape.rows), at.shape.blocks), side.of, side.place, z,
        Filters(found, None, 1, step, first), transform.tables, rows._replace(across=groups * at.parts, parts=at.parts),
        UPPER=side.upper or z is not None,
    )  # fmt: skip
    del z
    kind = operand(p)
    if kind == torch.float32:
        return Filters(found, None, repeats, step, first)
    rounded, scale = torch.empty_like(found, dtype=kind), found.new_empty(found.shape[0])
    launch_table.start(
        fused.round_spectra, (found.shape[0],), Key("round_spectra"), k.device, found, rounded, scale, found.shape[1],
        1 / there_and_back(p, at), TILE=TILE,
    )  # fmt: skip
    return Filters(rounded, scale, repeats, step, first)


def packed(filters: Filters) -> Tensor:
    """Spectra and their powers of two as bytes, to be kept."""
    parts = [filters.pointer] if filters.scale is None else [filters.pointer, filters.scale]
    return torch.cat([part.reshape(-1).view(torch.uint8) for part in parts])


def unpacked(p: Problem, at: Layout, spectrum: Tensor | None) -> Filters | None:
    """What `packed` made for such a Problem, or None where it is not that."""
    kind, repeats = operand(p), p.channels // p.groups
    numbers = p.groups * 2 * at.N * kind.itemsize
    scales = 0 if kind == torch.float32 else p.groups * 4
    if spectrum is None or p.per_sample or spectrum.dtype != torch.uint8 or not spectrum.is_contiguous():
        return None
    if spectrum.numel() != numbers + scales or spectrum.data_ptr() % 16:
        return None
    scale = spectrum[numbers:].view(torch.float32) if scales else None
    return Filters(spectrum[:numbers].view(kind), scale, repeats, 0)


def in_order(p: Problem, at: Layout, k: Tensor) -> Tensor:
    """The taps in use, in order of rising lag."""
    return taps.folded(p, at.period, taps.ordered(p, k)).narrow(-1, at.first_tap, at.taps)


def convolve(p: Problem, at: Layout, source: Side, target: Side, filters: Filters | Tensor, conj: bool) -> None:
    """Rows of `source` through their filters into `target`, or, with `conj`, through the filters' adjoints. `filters`: their
    spectra, or taps in order of rising lag."""
    transform = Transform(at, operand(p), source.of.x.pointer.device)
    if at.outer:
        for block in blocks(p, in_flight(p, at)):
            # Without a name, so that a block's spectra are gone when the next ones are made.
            _convolve_split(
                transform,
                source,
                target,
                spectra(p, at, filters, block) if isinstance(filters, Tensor) else filters,
                block,
                conj,
            )
        return
    if isinstance(filters, Tensor):
        filters = spectra(p, at, filters)
    R, windows = at.shape.rows, max(1, at.windows_back if conj else at.windows)
    across, along = p.channels, p.batch * windows
    swapped = R > 1 and across < min(R, along)
    if swapped:
        across, along = along, across
    tiles = -(-across // R)
    chunk = max(1, min(TURNS, tiles * along // PROGRAMS))
    transform.run(
        fused.convolve, "convolve", (-(-along // chunk) * tiles,), source.of, source.place, target.of, target.place, None, None,
        filters, transform.tables, Rows(across, along, chunk, 0, 0, windows), UPPER_IN=source.upper, UPPER_OUT=target.upper,
        CONJ=conj, SWAPPED=swapped, planes=1 + (source.upper or target.upper),
        gated=source.of.gate is not None or target.of.gate is not None,
    )  # fmt: skip


def _convolve_split(transform: Transform, source: Side, target: Side, filters: Filters, block: Block, conj: bool) -> None:
    at = transform.at
    rows = Rows(block.channels, block.samples, 1, block.sample, block.channel, 1)
    if at.regime == "fused_l2":
        transform.in_l2(source, target, rows, filters, conj)
        return
    z, back = transform.apart(source, rows)
    into = transform.scratch(block.channels * block.samples)
    count = block.channels * at.parts
    transform.run(
        fused.convolve, "convolve", (block.samples * -(-count // at.shape.rows),), None, source.place, None, target.place, z,
        into, filters, transform.tables, rows._replace(across=count, parts=at.parts), UPPER_IN=True, UPPER_OUT=True, CONJ=conj,
        SWAPPED=False,
    )  # fmt: skip
    del z
    transform.together(into, target, rows, source, back, filters)


def filter_gradient(p: Problem, at: Layout, dk: Tensor, source: Side, upstream: Side) -> None:
    """Add the filters' gradient to `dk`: products of spectra, summed over chains of samples, over chains and over channels."""
    repeats, samples = p.channels // p.groups, p.batch if p.per_sample else 1
    sums = [dk.new_empty(samples, p.groups, at.taps) for _ in range(1 + (p.circular and at.filter.again is not None))]
    again = None if at.filter.again is None else view(sums[-1])
    side = Side(Results(view(sums[0]), again=again), at.filter, at.filter_upper)
    back = Transform(at, torch.float32, dk.device, math.sqrt(at.N) / there_and_back(p, at))
    for group, groups in group_blocks(p, at):
        totals = torch.zeros(samples, groups, 2 * at.N, dtype=torch.float64, device=dk.device)
        for block in channel_blocks(p, at, group, groups):
            mine = totals[:, block.channel // repeats - group :]
            _add_products(p, at, mine, block, source, upstream)
        rows = Rows(groups, samples, 1, 0, group, 1)
        z = back.scratch(samples * groups) if at.outer else None
        back.run(
            fused.synthesise, "synthesise", (samples * -(-groups * at.parts // at.shape.rows),), totals, side.of, side.place, z,
            back.tables, rows._replace(across=groups * at.parts, parts=at.parts), UPPER=side.upper or z is not None,
        )  # fmt: skip
        if z is not None:
            back.together(z, side, rows)
        del totals, mine, z
    if len(sums) > 1:
        sums[0][..., 1:] += sums[1][..., 1:]
    taps.add_gradient(p, at.period, at.first_tap, dk, sums[0])


def _add_products(p: Problem, at: Layout, totals: Tensor, block: Block, source: Side, upstream: Side) -> None:
    """Add the products of some channels to the totals (samples, filters, 2N) from the first of theirs on."""
    transform, shape = Transform(at, operand(p), totals.device), at.shape
    sums, windows = totals.shape[0], max(1, at.windows_back)
    span = p.batch // sums * windows
    chains = -(-span // CHAIN)
    per_filter = min(p.channels // p.groups, block.channels)
    filters, apart = block.channels // per_filter, totals.stride(0) // totals.stride(1)
    correlated = {"UPPER": source.upper, "UPPER_OTHER": upstream.upper}
    if not at.outer:
        products = totals.new_empty(sums * chains, block.channels, 2 * at.N, dtype=torch.float32)
        transform.run(
            fused.correlate, "correlate", (sums * chains * -(-block.channels // shape.rows), shape.blocks), source.of,
            source.place, None, None, upstream.of, upstream.place, None, None, products, transform.tables,
            Rows(block.channels, sums * span, 1, 0, block.channel, windows), span, chains, **correlated, MORE=False,
        )  # fmt: skip
        _sum_up(products, totals, per_filter, sums * filters, filters, chains, apart)
        return
    products = totals.new_empty(1, block.channels, 2 * at.N, dtype=torch.float32)
    count = block.channels * at.parts
    for s, chain in itertools.product(range(sums), range(chains)):
        first, last = s * span + chain * CHAIN, min(s * span + (chain + 1) * CHAIN, (s + 1) * span)
        for sample in range(first, last, block.samples):
            rows = Rows(block.channels, min(block.samples, last - sample), 1, sample, block.channel, 1)
            (z, back), (other, back_other) = transform.apart(source, rows), transform.apart(upstream, rows)
            transform.run(
                fused.correlate, "correlate", (-(-count // shape.rows), shape.blocks), None, source.place, z, back, None,
                upstream.place, other, back_other, products, transform.tables, rows._replace(across=count, parts=at.parts),
                rows.turns, 1,
                UPPER=True, UPPER_OTHER=True, MORE=sample > first,
            )  # fmt: skip
            del z, back, other, back_other
        _sum_up(products, totals[s:], per_filter, filters, filters, 1, apart)


def _sum_up(products: Tensor, totals: Tensor, repeats: int, rows: int, filters: int, chains: int, apart: int) -> None:
    count = products.shape[-1]
    launch_table.start(
        fused.add_products, (rows * -(-count // TILE),), Key("add_products"), totals.device, products, totals, filters, apart,
        repeats, chains, count, TILE=TILE,
    )  # fmt: skip


def skip_gradient(p: Problem, dy: Tensor, given: Operands) -> Tensor:
    """(H,) in float32: sums over spans of samples, then over spans and the batch one after the other."""
    spans = -(-p.out_len // SPAN)
    partial = dy.new_empty(p.batch, p.channels, spans, dtype=torch.float32)
    total = dy.new_empty(p.channels, dtype=torch.float32)
    L, shift = p.in_len - p.history, p.out_start - p.in_start - p.history
    launch_table.start(
        fused.skip_gradient, (p.batch * p.channels * spans,), Key("skip_gradient"), dy.device,
        Signal(view(given.u), view(given.pregate)), L, Signal(view(dy), view(given.postgate)), p.out_len, p.channels, partial,
        spans, shift, SPAN=SPAN, TILE=TILE,
    )  # fmt: skip
    launch_table.start(
        fused.add_up, (-(-p.channels // CHANNELS),), Key("add_up"), dy.device, partial, total, p.channels, p.batch, spans,
        TILE=CHANNELS,
    )  # fmt: skip
    return total
