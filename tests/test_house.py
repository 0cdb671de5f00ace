"""The house: imports point down, and `import longwave` needs torch alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import longwave

ROOT = Path(longwave.__file__).parent
# Each layer may import those to its right, and its own.
LAYERS = [
    "cli",
    "commands",
    "train",
    "bench",
    "distributed",
    "models",
    "nn",
    "ops",
    "lowering",
    "backends",
    "masked",
    "taps",
    "results",
    "documents",
    "ring",
    "planner",
]
LAYERS += ["problem", "checks", "operands", "dtypes", "masks", "lengths", "transforms", "errors"]
BESIDE = {"data": {"errors", "data"}, "reference": set(), "_version": set()}  # what stands apart from the column
PARTS = {
    "train": {"data", "_version"},
    "commands": {"data", "_version", "reference"},
    "bench": {"reference", "_version"},
    "cli": {"_version"},
}


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_imports_point_down() -> None:
    wrong = []
    for path in ROOT.rglob("*.py"):
        part = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if part in ("__init__", "__main__"):
            continue
        for name in _imports(path):
            pieces = name.split(".")
            if pieces[0] != "longwave" or len(pieces) < 2:
                continue
            target = pieces[1]
            if target not in LAYERS and target not in BESIDE:
                target = "ops"  # a public name: `from longwave import long_conv`
            if part in BESIDE:
                allowed = target in BESIDE[part]
            else:
                below = LAYERS[LAYERS.index(part) :]
                allowed = target in below or target in PARTS.get(part, set())
            if not allowed:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_optional_packages_stay_in_their_folders() -> None:
    homes = {
        "numba": "backends/cpu",
        "triton": "backends/triton",
        "scipy": "bench",
        "ducc0": "bench",
        "torch.distributed": ("train", "distributed", "bench/ranks"),
    }
    wrong = []
    for path in ROOT.rglob("*.py"):
        where = path.relative_to(ROOT).as_posix()
        for name in _imports(path):
            for package, home in homes.items():
                allowed = ("commands", *([home] if isinstance(home, str) else home))
                if (name == package or name.startswith(package + ".")) and not where.startswith(allowed):
                    wrong.append(f"{where} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_import_longwave_loads_torch_and_nothing_optional() -> None:
    """Measured against `import torch` alone, which may itself load NumPy."""
    code = "import sys; {}; print(*sorted(m for m in sys.modules if '.' not in m))"

    def loaded(statement: str) -> set[str]:
        done = subprocess.run([sys.executable, "-c", code.format(statement)], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    extra = loaded("import longwave") - loaded("import torch, torch.autograd.forward_ad, dataclasses")
    assert not extra & {"numpy", "numba", "triton", "scipy", "ducc0", "matplotlib", "safetensors", "tqdm", "tomli_w"}, extra


def test_public_names_are_few_and_documented() -> None:
    assert len(longwave.__all__) <= 14
    for name in longwave.__all__:
        value = getattr(longwave, name)
        if callable(value):
            assert value.__doc__
            assert "Raises" in value.__doc__


MAKERS = {"arange", "empty", "eye", "full", "hann_window", "linspace", "logspace", "ones", "rand", "randn", "tensor", "zeros"}
AT_HOME = {"cpu_only", "gpu"}  # marks of tests that are on a device of their own


def test_tests_of_operators_make_their_tensors_on_the_device_asked_for() -> None:
    """Elsewhere they would pass and say nothing of it. What is on the CPU by contract says so, or is int32: boundaries."""
    wrong = []
    for path in sorted((Path(__file__).parent / "ops").glob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        excused: set[ast.AST] = set()
        for node in ast.walk(tree):
            moved = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "here"
            marked = isinstance(node, ast.FunctionDef) and any(_is_marked(mark) for mark in node.decorator_list)
            if moved or marked:
                excused |= set(ast.walk(node))
        if any(isinstance(node, ast.Assign) and _is_marked(node.value) for node in tree.body):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node not in excused and ast.unparse(node.func) in {f"torch.{m}" for m in MAKERS}:
                options = {option.arg: ast.unparse(option.value) for option in node.keywords}
                if "device" not in options and options.get("dtype") != "torch.int32":
                    wrong.append(f"{path.name}:{node.lineno} {ast.unparse(node)}; use devices.here or devices.randn")
    assert not wrong, "\n".join(wrong)


def test_tests_of_layers_make_their_tensors_where_the_device_is_known() -> None:
    """Inside of tests, whose fixture makes the device that was asked for the default; a generator is of the CPU, and what it
    draws is brought there."""
    wrong = []
    for path in sorted((Path(__file__).parent / "nn").glob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inside, moved = set[ast.AST](), set[ast.AST]()
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.Lambda):
                inside |= {
                    part for line in (node.body if isinstance(node.body, list) else [node.body]) for part in ast.walk(line)
                }
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "here":
                moved |= set(ast.walk(node))
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) not in {f"torch.{m}" for m in (*MAKERS, "randint")}:
                continue
            drawn = any(option.arg == "generator" for option in node.keywords)
            if node not in inside or (drawn and node not in moved):
                wrong.append(
                    f"{path.name}:{node.lineno} {ast.unparse(node)}; make it in a test, and bring what is drawn with here"
                )
    assert not wrong, "\n".join(wrong)


def _is_marked(node: ast.expr) -> bool:
    named = node.func if isinstance(node, ast.Call) else node
    return isinstance(named, ast.Attribute) and named.attr in AT_HOME and ast.unparse(named.value) == "pytest.mark"
