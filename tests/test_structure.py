"""Imports run one way, and what must not be in the repository is not."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from run_tools import QUICK

ROOT = Path(__file__).parents[1]
COMMAND_LINE = ("wn_rl.cli", "wn_rl.commands")


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            module = node.module or ""
            found |= {module} | {f"{module}.{name.name}" for name in node.names}
    return found


def roots(modules: set[str]) -> set[str]:
    return {module.split(".")[0] for module in modules}


@pytest.mark.parametrize("path", sorted((ROOT / "wn_rl" / "nn").glob("*.py")), ids=lambda path: path.name)
def test_nn_imports_torch_and_itself_alone(path: Path) -> None:
    imported = imports_of(path)
    assert not {m for m in imported if m.startswith("wn_rl") and not m.startswith(("wn_rl.nn", "wn_rl.registry"))}
    third_party = roots(imported) - {"torch", "triton", "wn_rl"}  # Triton comes with torch for CUDA
    assert third_party <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", sorted((ROOT / "envs").glob("*.py")), ids=lambda path: path.name)
def test_envs_import_no_torch_and_nothing_else_of_ours(path: Path) -> None:
    imported = imports_of(path)
    assert "torch" not in roots(imported)
    assert not {
        m for m in imported if m.startswith("wn_rl") and not m.startswith(("wn_rl.envs", "wn_rl.registry"))
    }


@pytest.mark.parametrize("path", sorted((ROOT / "agents").glob("*.py")), ids=lambda path: path.name)
def test_agents_do_not_import_the_command_line(path: Path) -> None:
    assert not {m for m in imports_of(path) if m.startswith(COMMAND_LINE)}


PLUMBING = [
    path
    for folder in (ROOT / "wn_rl", ROOT / "wn_rl" / "report")
    for path in sorted(folder.glob("*.py"))
    if path.name != "cli.py"
]


@pytest.mark.parametrize("path", PLUMBING, ids=lambda path: path.name)
def test_plumbing_knows_neither_agents_nor_envs_nor_commands(path: Path) -> None:
    assert not {m for m in imports_of(path) if m.startswith(("wn_rl.agents", "wn_rl.envs", *COMMAND_LINE))}


def test_the_commands_import_no_torch_before_their_flags_are_read() -> None:
    modules = [
        "wn_rl.cli",
        *(f"wn_rl.commands.{path.stem}" for path in (ROOT / "wn_rl" / "commands").glob("*.py")),
    ]
    check = f"import {', '.join(modules)}, sys; sys.exit('torch' in sys.modules)"
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
