"""A comparison as data: games x arms x seeds become runs, each a function of its Config, each in a folder.

    OUT/comparison.json              the grids that commands asked for
    OUT/runs/NAME/                   one run, as `wn-rl train` makes it
    OUT/logs/NAME.log                what the run's process printed

A run's name says which cell of the grid it is, so the same command finds its runs again, whatever stopped it.
"""

import dataclasses
import json
import os
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wn_rl.compare.arms import Arm
from wn_rl.config import Config, Role, flat, names_of
from wn_rl.errors import UserError, in_one_line
from wn_rl.registry import PRESETS, SUITES
from wn_rl.run.folder import RunFolder, arm_on_game, open_run, write_json

# What a run may leave that was killed before it wrote its config: it never took a step.
_DEBRIS = re.compile(r"\.lock|\.config\.json\.\d+\.tmp|wandb|tensorboard")


@dataclass(frozen=True)
class Run:
    """One run of many. out: the folder of them all."""

    config: Config
    out: Path

    @property
    def name(self) -> str:
        """The name of its folder."""
        return str(self.config.run_name)

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.out / "runs" / self.name

    @property
    def log(self) -> Path:
        """The file that its process prints to."""
        return self.out / "logs" / f"{self.name}.log"


@dataclass(frozen=True)
class Planned:
    """A run that a command asked for in the folder out; one that never began has no folder."""

    out: Path
    name: str
    suite: str

    @property
    def folder(self) -> Path:
        return self.out / "runs" / self.name

    @property
    def began(self) -> bool:
        """Whether the run has a config.json."""
        return os.path.exists(self.folder / "config.json")  # False, not an error, in a locked folder


@dataclass(frozen=True)
class Grid:
    """What one command asked for. command: its words."""

    command: list[str]
    runs: list[Planned]


State = Literal["waiting", "busy", "running", "finished", "interrupted", "failed", "unreadable"]


@dataclass
class Entry:
    """A run as it stands. message: why it is so. failures: its attempts that failed in this invocation."""

    run: Run
    state: State
    message: str = ""
    failures: int = 0


def expand(bases: Sequence[Config], arms: Sequence[Arm], seeds: Iterable[int], out: Path) -> tuple[Run, ...]:
    """The runs of the grid. Seeds are outermost, so that the first runs to finish are a comparison already.

    bases: one for each game: the settings that all its runs share.

    Raises:
        UserError: an axis is empty, or names something twice.
        ValueError: a config is invalid.
    """
    runs = tuple(_cell(base, arm, seed, out) for seed in seeds for base in bases for arm in arms)
    if not runs:
        raise UserError("the grid is empty: it needs at least one game, one arm and one seed")
    [(name, count)] = Counter(run.name for run in runs).most_common(1)
    if count > 1:
        raise UserError(f"the grid names the run {name} twice: a game or an arm is given twice")
    return runs


def _cell(base: Config, arm: Arm, seed: int, out: Path) -> Run:
    """The run of one cell, named e.g. minatar-breakout-weight_norm-lr0.0003-seed1."""
    values = {f"network.{name}": value for name, value in arm.options}
    if arm.learning_rate is not None:
        values["optimizer.learning_rate"] = arm.learning_rate
    config = changed(base, {"parameterization": arm.parameterization, "seed": seed, **values})
    group = arm_on_game(config)
    return run_beside_others(changed(config, {"group": config.group or group}), f"{group}-seed{seed}", out)


def run_beside_others(config: Config, name: str, out: Path) -> Run:
    """One run of many in the folder `out`, its group if it has no other, with the learning rate resolved.

    It has one torch thread, unless it says how many, since the runs share the cores.
    """
    own = {
        "run_name": name,
        "group": config.group or out.resolve().name,
        "torch_threads": config.torch_threads or 1,
    }
    return Run(changed(config, {**own, "optimizer.learning_rate": config.learning_rate}), out)


def changed(config: Config, values: Mapping[str, Any]) -> Config:
    """The config with other values of some settings, names with dots.

    Raises:
        ValueError: it is invalid.
    """
    parts = defaultdict[str, dict[str, Any]](dict)
    for name, value in values.items():
        part, _, last = name.rpartition(".")
        parts[part][last] = value
    own = parts.pop("", {})
    nested = {part: dataclasses.replace(getattr(config, part), **new) for part, new in parts.items()}
    return dataclasses.replace(config, **own, **nested)


def share_cores(config: Config, cores: int) -> Config:
    """The config with this number of processes for the run's emulators, if it has any and leaves it open."""
    is_open = SUITES[config.suite].pixels and config.environment.processes == 0 and config.num_envs > 1
    return changed(config, {"environment.processes": cores}) if is_open else config


def require_evaluations(config: Config) -> None:
    """UserError if a run would end without an evaluation, from which its score comes."""
    if not 0 < config.evaluation.period <= config.steps:
        raise UserError(
            f"--evaluation.period {config.evaluation.period} gives a run of {config.steps} steps no evaluation, "
            f"and its score comes from evaluations"
        )


def flags_of(config: Config) -> list[str]:
    """The arguments of `wn-rl train` that give this config: the preset, and what differs from it."""
    preset = PRESETS[config.preset](config.game)
    return [config.game, "--preset", config.preset, *differing_flags(flat(config), flat(preset))]


def differing_flags(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """The flags, as tyro reads them, of the values that are not at their defaults; names with dots."""
    return [word for name in values if values[name] != defaults[name] for word in _flag_of(name, values[name])]


def _flag_of(name: str, value: Any) -> list[str]:
    """E.g. --learning.no-clip-rewards, or --track jsonl wandb."""
    part, dot, last = name.replace("_", "-").rpartition(".")
    if isinstance(value, bool):
        return [f"--{part}{dot}{'' if value else 'no-'}{last}"]
    return [f"--{part}{dot}{last}", *map(str, value if isinstance(value, list | tuple) else (value,))]


def look(run: Run) -> Entry:
    """A run as it stands on disk: waiting, finished or unreadable. Its folder is left as it is.

    Raises:
        UserError: the folder holds a run with other settings.
    """
    try:
        if not run.path.exists() or all(_DEBRIS.fullmatch(entry.name) for entry in run.path.iterdir()):
            return Entry(run, "waiting")
        folder, _, saved = open_run(run.path)
        status = folder.read_status()
    except (OSError, ValueError) as error:
        return Entry(run, "unreadable", in_one_line(error))
    require_same(run.path, flat(saved), flat(run.config))
    if status.status == "finished":
        return Entry(run, "finished")
    return Entry(run, "waiting", f"failed before: {status.message}" if status.status == "failed" else "")


def require_same(folder: Path, saved: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """UserError if a setting of two flat configs differs and decides results. folder: that of the saved one."""
    free = names_of(Role.CIRCUMSTANCE, Role.RECORD)
    for name, value in asked.items():
        if name not in free and saved.get(name) != value:
            raise UserError(
                f"{folder} was started with {name} {saved.get(name)!r}, and this command asks for {value!r}: "
                f"ask for the same, or choose another --out"
            )


def prepare(run: Run) -> bool:
    """Whether no process works in the run's folder. If so, what a killed start left there is removed.

    Raises:
        UserError: the folder could not be made.
    """
    folder = RunFolder(run.path)
    try:
        with folder.lock():
            for entry in [] if folder.config_file.exists() else run.path.iterdir():
                if _DEBRIS.fullmatch(entry.name) and entry.is_dir():
                    shutil.rmtree(entry)
                elif _DEBRIS.fullmatch(entry.name) and entry.name != ".lock":
                    entry.unlink()
    except UserError as error:
        if isinstance(error.__cause__, BlockingIOError):
            return False
        raise
    return True


def write_grid(runs: Sequence[Run], command: Sequence[str]) -> None:
    """Add a grid to comparison.json, in place of those whose runs are all in this one.

    Raises:
        UserError: comparison.json is damaged.
    """
    out, names = runs[0].out, {run.name for run in runs}
    kept = [grid for grid in read_grids(out) if not {run.name for run in grid.runs} <= names]
    grids = [*kept, Grid(list(command), [Planned(out, run.name, run.config.suite) for run in runs])]
    plain = [
        {"command": grid.command, "runs": [{"name": run.name, "suite": run.suite} for run in grid.runs]}
        for grid in grids
    ]
    write_json(out / "comparison.json", {"grids": plain})


def read_grids(out: Path) -> list[Grid]:
    """The grids that commands asked for in a folder, the oldest first; an empty list if none did.

    Raises:
        UserError: comparison.json is damaged.
    """
    file = out / "comparison.json"
    try:
        grids = json.loads(file.read_bytes())["grids"]
        return [
            Grid(grid["command"], [Planned(out, run["name"], run["suite"]) for run in grid["runs"]])
            for grid in grids
        ]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged ({in_one_line(repr(error))}): move it away") from error
