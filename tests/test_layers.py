"""Imports go one way, and what is not needed is not loaded."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import maskfix

PACKAGE = Path(maskfix.__file__).parent

LAYERS = (
    {"errors"},
    {"types", "files", "version", "runtime", "sharding", "threads", "words"},
    {"archive", "config", "masks", "metrics"},
    {"rle"},
    {"polygons"},
    {"clicks", "crops", "damage", "formats", "model", "report"},
    {"predictor"},
    {"baselines"},
    {"refinement", "evaluate", "compare", "methods", "showing", "sheet", "exporting"},
    {"benchmarks", "triage"},
    {"evaluation", "bench"},
    {"train"},
    {"cli"},
    {"__main__"},
)
"""A room imports from itself and from earlier layers; never from another room of its own layer."""

WITH_TORCH = {
    *("model", "predictor", "train", "evaluation", "cli.train"),
    *("refinement.finish", "refinement.processes", "triage.probe"),
    *("bench.machine", "bench.run"),
    *("baselines.brs", "baselines.brs_optimize", "baselines.grid"),
}
"""Rooms, or modules of other rooms, that may name torch."""

HEAVY = ("torch", "numpy", "cv2", "pycocotools", "PIL", "yaml", "scipy", "matplotlib")
HELP_SECONDS = 0.5  # of processor time, the interpreter's start included

MODULES = {
    path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path != PACKAGE / "__init__.py"  # loads everything, when it is asked for
}


def imports_of(path: Path) -> set[str]:
    """Full names of all modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer_of(room: str) -> int:
    [found] = [number for number, rooms in enumerate(LAYERS) if room in rooms]
    return found


def test_every_module_has_a_layer() -> None:
    rooms = {name.partition(".")[0] for name in MODULES}
    assert rooms == set().union(*LAYERS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module: str) -> None:
    own = module.partition(".")[0]
    for name in imports_of(MODULES[module]):
        package, *rest = name.split(".")
        if package == "maskfix" and rest[0] != own:
            assert layer_of(rest[0]) < layer_of(own), f"{module} imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_torch_stays_in_its_rooms(module: str) -> None:
    if module.partition(".")[0] not in WITH_TORCH and module not in WITH_TORCH:
        assert not any(name.split(".")[0] == "torch" for name in imports_of(MODULES[module]))


def loaded_by(code: str) -> tuple[list[str], float]:
    """Heavy packages that are there after some code, and the processor time of its process."""
    report = f"""
import sys
try:
{code}
except SystemExit as end:
    assert not end.code
import json, time
heavy = [name for name in {HEAVY!r} if name in sys.modules]
print("\\n" + json.dumps([heavy, time.process_time()]))
"""
    done = subprocess.run(
        [sys.executable, "-c", report], capture_output=True, text=True, check=True, timeout=60
    )
    heavy, seconds = json.loads(done.stdout.splitlines()[-1])
    return heavy, seconds


def test_the_package_loads_nothing_heavy() -> None:
    heavy, _ = loaded_by("    import maskfix")
    assert heavy == []


NAMES = "refine merge show sheet triage export eval compare train data weights docs bench"
COMMANDS = ["", *NAMES.split()]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_nothing_heavy_and_is_quick(command: str) -> None:
    code = f"    sys.argv = ['maskfix', *{command.split()!r}, '--help']\n"
    code += "    from maskfix.cli.main import main\n    main()"
    runs = [loaded_by(code) for _ in range(2)]
    assert all(heavy == [] for heavy, _ in runs)
    assert min(seconds for _, seconds in runs) < HELP_SECONDS
