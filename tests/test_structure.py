"""The structure: what each wing may import, no import cycles, small modules, and no slow imports at the start."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from run_tools import QUICK

from wn_rl import __version__

ROOT = Path(__file__).parents[1]
FOLDERS = {"wn_rl.agents": ROOT / "agents", "wn_rl.envs": ROOT / "envs", "wn_rl": ROOT / "wn_rl"}
FLAT = {
    *("wn_rl", "wn_rl.config", "wn_rl.config_checks", "wn_rl.errors", "wn_rl.machine", "wn_rl.presets"),
    *("wn_rl.registry", "wn_rl.seeding"),
}
# Each wing, and what it may import besides itself.
MAY_IMPORT = {
    "wn_rl.nn": {"wn_rl.registry"},
    "wn_rl.envs": {"wn_rl.registry", "wn_rl.machine"},
    "wn_rl.agents": {"wn_rl.nn", "wn_rl.envs", *FLAT},
    "wn_rl.run": {"wn_rl.agents", "wn_rl.nn", "wn_rl.envs", *FLAT},
    "wn_rl.compare": {"wn_rl.run", *FLAT},
    "wn_rl.report": {"wn_rl.compare", "wn_rl.run", *FLAT},
    "wn_rl.sb3": {"wn_rl.nn", "wn_rl.envs", "wn_rl.run", *FLAT},
    "wn_rl.export": {"wn_rl.nn", "wn_rl.run", *FLAT},
}


@cache
def modules() -> dict[str, Path]:
    """Every module of the package, by its dotted name."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            if package != "wn_rl" or parts[0] not in ("agents", "envs"):  # links to the folders above
                found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Every module that a file imports, anywhere in it; `from package import module` gives the module.

    The front door imports nothing of ours before it is asked for it.
    """
    found: set[str] = set()
    if path == FOLDERS["wn_rl"] / "__init__.py":
        return frozenset()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names = [f"{node.module}.{name.name}" for name in node.names]
            found |= {name if name in modules() else str(node.module) for name in names}
    return frozenset(found)


def wing_of(module: str) -> str:
    """The wing that a module belongs to, or itself if it is a flat one."""
    wing = ".".join(module.split(".")[:2])
    return wing if wing in {*MAY_IMPORT, "wn_rl.commands"} else module


@pytest.mark.parametrize("wing", MAY_IMPORT)
def test_a_wing_imports_what_it_may(wing: str) -> None:
    for module, path in modules().items():
        if wing_of(module) == wing:
            ours = {wing_of(name) for name in imports_of(path) if name.split(".")[0] == "wn_rl"}
            assert ours - {wing} <= MAY_IMPORT[wing], module


def test_nn_needs_torch_alone_and_layers_know_no_update() -> None:
    for module, path in modules().items():
        if wing_of(module) == "wn_rl.nn":
            roots = {name.split(".")[0] for name in imports_of(path)} - {"torch", "triton", "wn_rl"}
            assert roots <= set(sys.stdlib_module_names), module  # Triton comes with torch for CUDA
            if module != "wn_rl.nn" and not module.startswith("wn_rl.nn.update"):
                assert not any(name.startswith("wn_rl.nn.update") for name in imports_of(path)), module


def test_envs_need_no_torch() -> None:
    for module, path in modules().items():
        if wing_of(module) == "wn_rl.envs":
            assert "torch" not in {name.split(".")[0] for name in imports_of(path)}, module


def test_what_all_may_import_imports_no_wing() -> None:
    for module in FLAT:
        ours = {name for name in imports_of(modules()[module]) if name.split(".")[0] == "wn_rl"}
        assert ours <= FLAT, module
    assert {module for module in modules() if module.count(".") <= 1} - {*MAY_IMPORT, "wn_rl.commands"} == {
        *FLAT,
        "wn_rl.__main__",
        "wn_rl.cli",
    }


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {module: imports_of(path) & modules().keys() - {module} for module, path in modules().items()}
    while leaves := {module for module, imported in graph.items() if not imported}:
        graph = {module: imported - leaves for module, imported in graph.items() if module not in leaves}
    assert not graph


def test_wings_stand_on_at_most_eight_floors() -> None:
    graph: dict[str, set[str]] = {}
    for module, path in modules().items():
        ours = {wing_of(name) for name in imports_of(path) & modules().keys()}
        graph.setdefault(wing_of(module), set()).update(ours - {wing_of(module)})

    def floor(wing: str) -> int:
        return 1 + max((floor(below) for below in graph[wing]), default=0)

    assert max(map(floor, graph)) <= 8


@pytest.mark.parametrize("folder", ["agents", "envs", "wn_rl", "scripts", "examples"])
def test_modules_and_functions_are_small(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        text = path.read_text()
        assert text.count("\n") <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 55, f"{path}: {node.name}"


def test_the_commands_import_no_torch_before_their_flags_are_read() -> None:
    modules = [
        "wn_rl.cli",
        *(f"wn_rl.commands.{path.stem}" for path in (ROOT / "wn_rl" / "commands").glob("*.py")),
    ]
    check = f"import {', '.join(modules)}, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_the_front_door_imports_torch_only_for_what_needs_it() -> None:
    check = """
import sys, wn_rl
from wn_rl import PRESETS, Config
assert set(wn_rl.__all__) == {"PRESETS", "Config", "__version__", "load_run", "train"}
assert isinstance(PRESETS["paper"]("breakout"), Config) and "torch" not in sys.modules
assert not hasattr(wn_rl, "no_such_name")
from wn_rl.run import loading, training
assert (wn_rl.load_run, wn_rl.train) == (loading.load_run, training.train)
"""
    subprocess.run([sys.executable, "-c", check], check=True)
    command = [sys.executable, "-m", "wn_rl", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{__version__}\n"


def test_the_layers_need_torch_and_numpy_alone() -> None:
    check = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"ale_py", "minatar", "gymnasium", "cv2", "tyro", "rich", "wandb"}:
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import torch, wn_rl.nn
wn_rl.nn.reparameterize(torch.nn.Linear(2, 2), "weight_norm")
"""
    subprocess.run([sys.executable, "-c", check], check=True)


def test_the_links_are_relative_and_lead_to_the_folders() -> None:
    for name in ("agents", "envs"):
        link = ROOT / "wn_rl" / name
        assert link.is_symlink()
        assert str(link.readlink()) == f"../{name}"


def test_a_run_that_compiles_nothing_does_not_import_torch_s_compiler(tmp_path: Path) -> None:
    """It would double the time that `wn-rl train` takes to start; nor do checkpoints, saved or read."""
    script = f"""
import sys
import torch
from wn_rl.cli import main
assert "torch._dynamo" not in sys.modules, "torch imports its compiler by itself"
train = ["train", "breakout", *{QUICK!r}, "--keep-replay", "--run-dir", "run"]
for command in (train, ["resume", "run", "--steps", "700"]):
    try:
        main(command)
    except SystemExit as end:
        assert end.code == 0
sys.exit("torch._dynamo" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
