"""`longwave` as typed at a terminal, for the tests of its commands."""

from __future__ import annotations

import pytest

from longwave import cli


def typed(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """The status, what was printed and what was complained about, by this command alone."""
    capsys.readouterr()
    try:
        status = cli.main(argv)
    except SystemExit as stop:
        status = int(stop.code or 0)
    out = capsys.readouterr()
    return status, out.out, out.err
