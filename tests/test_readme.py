"""The README keeps its word: its snippets run, its commands exist, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from longwave.cli import build_parser, command_modules

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_snippets_run_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    # Fewer channels than the text shows: the same code in a tenth of the time.
    snippets = [block.replace("768", "32") for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)]
    assert len(snippets) >= 2
    names: dict = {}
    for snippet in snippets:
        exec(snippet, names)
    assert names["y"].shape == (4, 32, 14_113)
    assert names["k"].grad.abs().max() > 0
    assert "long convolution of B=4 H=32 L=14,113" in capsys.readouterr().out


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    assert len(README.splitlines()) <= 150
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_commands_it_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"\bmake ([a-z-]+)", README)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    lines = [line.split("#")[0].split()[1:] for line in README.splitlines() if line.startswith("    longwave ")]
    assert {line[0] for line in lines} <= set(command_modules())
    for line in lines:
        build_parser().parse_args(line)


def test_the_files_it_is_built_from_exist() -> None:
    for name in ("LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/math.md", "docs/numerics.md"):
        assert (ROOT / name).stat().st_size > 500, name
    index = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for path in (ROOT / "longwave").iterdir():
        if path.name.startswith("_") and path.name != "__init__.py":
            continue
        name = path.name if path.suffix == ".py" else f"{path.name}/"
        assert name in index, f"docs/architecture.md does not name {name}"


def test_torch_is_pinned_first() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert makefile.index("torch==2.13.0\n") < makefile.index("-r requirements.txt")
    assert torch.__version__
