"""`longwave numerics`: the errors are those of the operator, and a broken one shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from longwave import cli
from longwave.bench import numerics
from longwave.bench.numerics import DTYPES, KINDS, QUANTITIES, mutant_rows, rows
from longwave.bench.numerics_report import as_markdown
from longwave.bench.stamp import make_stamp


def test_every_dtype_quantity_and_side_is_measured_and_within_its_bounds() -> None:
    found = rows(["plain"], max_length=1_000)
    assert {row.dtype for row in found} == set(DTYPES)
    assert {row.length for row in found} == {255, 1_000}
    assert {row.side for row in found if row.dtype == "float32"} == {"longwave:plain", "torch.fft"}
    assert {row.side for row in found if row.dtype == "float16"} == {"longwave:plain", "torch.fft", "rounding"}
    for row in found:
        assert set(row.errors) == set(QUANTITIES)
        assert all(error > 0 for error in row.errors.values())  # nothing is compared with itself
        if row.side != "rounding":
            assert row.worst is not None
            assert row.worst <= 1
            assert row.worst_point is not None
            assert row.worst_point <= 1
    # float64 is measured below its own rounding: 2^-53 = 1.1e-16.
    assert max(row.errors["y"] for row in found if row.dtype == "float64") < 1e-15


def test_every_kind_of_input_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "LENGTHS", (64,))
    monkeypatch.setattr(numerics, "KIND_LENGTHS", (128,))
    found = rows(["plain"], max_length=128)
    assert {(row.kind, row.length) for row in found} == {(kind, 64 if kind == "N(0,1)" else 128) for kind in KINDS}
    assert all(row.worst is None or row.worst <= 1 for row in found)


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_of_input_lets_a_missing_convolution_pass(kind: str) -> None:
    """D·v must not drown the convolution: without it the result has to be far outside every bound."""
    case = numerics.Case(B=2, H=2, L=300, K=300, gated=True, skip=True, dtype="float64", direction="forward+backward")
    x = KINDS[kind](numerics.make_arrays(case))
    y = numerics.exact(case, x)["y"]
    only_skip = x.postgate * x.D[:, None] * (x.u * x.pregate)
    assert (only_skip - y).norm() > 0.1 * y.norm()
    if "mean" in kind:
        assert (x.u * x.pregate).mean() > 15


def test_a_broken_operator_is_reported_and_fails_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "n.md"
    assert cli.main(["numerics", "--max-length", "255", "--backend", "plain", "--out", str(page)]) == 0
    assert "times its bound" not in page.read_text()

    from longwave import long_conv

    monkeypatch.setattr("longwave.long_conv", lambda *args, **options: long_conv(*args, **options).roll(1, -1))
    assert cli.main(["numerics", "--max-length", "255", "--backend", "plain", "--out", str(page)]) == 1
    assert "`longwave:plain`, float32, 255 samples, N(0,1)" in page.read_text().partition("not reached")[2]
    capsys.readouterr()


def test_mutants_miss_the_bounds_where_the_dtype_can_show_it() -> None:
    found = mutant_rows()
    assert len(found) == 7
    for row in found:
        assert row.misses["float64"] > 1e6
        assert row.misses["float32"] > 100
        if row.name != "last tap dropped":
            assert min(row.misses.values()) > 4


def test_the_page_is_stamped_and_complete() -> None:
    found = rows(["plain"], max_length=255, dtypes=["float32", "bfloat16"])
    stamp = make_stamp(argv=["numerics"])
    page = as_markdown(stamp, found, mutant_rows([255, 1_000]))
    assert stamp.cpu in page
    assert "    longwave numerics\n" in page
    for part in ("### float32", "### bfloat16", "| 255 | longwave:plain |", "| 255 | rounding |", "one sample late", "1,000"):
        assert part in page
    assert "### float16" not in page
    for line in page.splitlines():
        assert len(line) < 300
    assert page.endswith("\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-length", "3"], "the shortest length is 255"),
        (["--backend", "abacus"], "--backend abacus is unknown"),
        (["--out", "{tmp}/no/such.md"], "cannot be written"),
    ],
)
def test_bad_input_gets_one_sentence(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["numerics", *(option.format(tmp=tmp_path) for option in options)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())
