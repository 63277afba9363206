"""What the README tells people to type works, and it stays short and says what was measured."""

import importlib
import json
import re
import shlex
from pathlib import Path
from statistics import median

import pytest

from wn_rl import cli
from wn_rl.commands import compare, train, tune
from wn_rl.commands._shared import parse_flags

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
    if line.startswith("wn-rl")
]


@pytest.mark.parametrize("source", PYTHON, ids=lambda source: source.splitlines()[0])
def test_python_examples_run(source: str) -> None:
    exec(compile(source.replace("20_000", "6_000"), "README.md", "exec"), {})


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_are_accepted(command: list[str]) -> None:
    assert command[1] in cli.COMMANDS
    arguments = command[2:]
    if command[1] == "compare":  # which takes the flags of train too
        grid, others = parse_flags(compare.Compare, arguments, return_unknown_args=True)
        assert compare._runs_of(grid, others)
        return
    if command[1] == "tune":  # which does so too
        search, others = parse_flags(tune.Tune, arguments, return_unknown_args=True)
        config = train.read_flags([search.game, *others]).config
        assert all(tune._parse(text, config) for text in search.space)
        return
    options = getattr(importlib.import_module(f"wn_rl.commands.{command[1]}"), command[1].title())
    default = {"default": train.Train(train._defaults_of(arguments))} if command[1] == "train" else {}
    assert parse_flags(options, arguments, **default)


def test_every_command_is_shown() -> None:
    assert {command[1] for command in COMMANDS} == set(cli.COMMANDS)


def test_it_stays_short() -> None:
    assert len(README.split()) <= 1200


def test_the_speed_beside_sb3_is_that_of_the_benchmark_page() -> None:
    rows = json.loads((ROOT / "docs/benchmarks.json").read_text())["peers"]["rows"]

    def span(layers: str) -> str:
        loop = f"ours, {layers}, float32"
        ratios = [median(row["results"]["ratio to SB3"]) for row in rows if row["what"]["loop"] == loop]
        return f"{min(ratios):.2f} to {max(ratios):.2f} times"

    in_one_line = " ".join(README.split())
    assert f"runs {span('normal')} as fast as Stable-Baselines3's DQN" in in_one_line
    assert f"with weight norm {span('weight_norm')} (" in in_one_line
