"""A comparison as data: games x arms x seeds become runs, each a function of its Config, each in a folder.

    OUT/comparison.json              the grids that commands asked for
    OUT/runs/NAME/                   one run, as `wn-rl train` makes it
    OUT/logs/NAME.log                what the run's process printed

A run's name says which cell of the grid it is, so the same command finds its runs again, whatever stopped it.
"""

import dataclasses
import json
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wn_rl.compare.arms import Arm
from wn_rl.config import Config, Role, flat, from_json, method_options, names_of
from wn_rl.errors import UserError, in_one_line, say
from wn_rl.registry import PRESETS, import_flags
from wn_rl.run.folder import RunFolder, file_name, write_json

# What a run may leave that was killed before it wrote its config: it never took a step.
_DEBRIS = re.compile(r"\.lock|\.config\.json\.\d+\.tmp|wandb|tensorboard")


@dataclass(frozen=True)
class Run:
    """One run of many. out: the folder of them all."""

    config: Config
    out: Path

    @property
    def name(self) -> str:
        """The name of its folder: that of its cell, unless its config names it."""
        return self.config.run_name or _cell_name(self.config)

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.out / "runs" / self.name

    @property
    def log(self) -> Path:
        """The file that its process prints to."""
        return self.out / "logs" / f"{self.name}.log"


@dataclass(frozen=True)
class Cell:
    """A run of a grid, as comparison.json has it."""

    name: str
    suite: str
    game: str
    parameterization: str
    options: dict[str, float | str]
    learning_rate: float
    seed: int
    steps: int

    @property
    def arm(self) -> Arm:
        """The arm that it is a run of."""
        return Arm(self.parameterization, self.learning_rate, tuple(self.options.items()))


@dataclass(frozen=True)
class Grid:
    """What one command asked for. command: its words."""

    command: list[str]
    runs: list[Cell]


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
    runs = tuple(Run(_config_of(base, arm, seed, out), out) for seed in seeds for base in bases for arm in arms)
    if not runs:
        raise UserError("the grid is empty: it needs at least one game, one arm and one seed")
    [(name, count)] = Counter(run.name for run in runs).most_common(1)
    if count > 1:
        raise UserError(f"the grid names the run {name} twice: a game or an arm is given twice")
    return runs


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


def beside_others(config: Config, out: Path) -> Config:
    """The config of one run of many, in the group of their folder `out`, with the learning rate resolved.

    It has one torch thread, unless it says how many, since the runs share the cores.
    """
    rate, group = config.learning_rate, config.group or out.resolve().name
    threads = config.torch_threads or 1
    return changed(config, {"optimizer.learning_rate": rate, "torch_threads": threads, "group": group})


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


def differing_flags(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[str]:
    """The flags, as tyro reads them, of the values that are not at their defaults; names with dots."""
    for name, value in values.items():
        if value != defaults[name]:
            yield from flag_of(name, value)


def flag_of(name: str, value: Any) -> list[str]:
    """One flag as tyro reads it.

    >>> flag_of("learning.clip_rewards", False), flag_of("track", ("jsonl", "wandb"))
    (['--learning.no-clip-rewards'], ['--track', 'jsonl', 'wandb'])
    """
    part, dot, last = name.replace("_", "-").rpartition(".")
    if isinstance(value, bool):
        return [f"--{part}{dot}{'' if value else 'no-'}{last}"]
    return [f"--{part}{dot}{last}", *map(str, value if isinstance(value, list | tuple) else (value,))]


def look(run: Run) -> Entry:
    """A run as it stands on disk: waiting, finished or unreadable. Its folder is left as it is.

    Raises:
        UserError: the folder holds a run with other settings.
    """
    folder = RunFolder(run.path)
    try:
        if not folder.path.exists() or (folder.path.is_dir() and not any(_contents(folder.path))):
            return Entry(run, "waiting")
        saved = from_json(json.loads(folder.config_file.read_bytes())["config"])
    except FileNotFoundError:
        return Entry(run, "unreadable", f"{folder.path} has no config.json, and is not empty")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        return Entry(run, "unreadable", f"{folder.config_file} cannot be read: {_in_words(error)}")
    difference = decisive_difference(flat(saved), flat(run.config))
    if difference:
        name, theirs, ours = difference
        raise UserError(
            f"{run.path} was started with {name} {theirs!r}, and the grid asks for {ours!r}: "
            f"ask for the same, or choose another --out"
        )
    return Entry(run, "finished") if folder.is_finished() else Entry(run, "waiting", _why_failed(folder))


def decisive_difference(saved: Mapping[str, Any], asked: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first setting of two flat configs that differs and decides results: its name, and both values."""
    free = names_of(Role.CIRCUMSTANCE, Role.RECORD)
    differing = ((name, saved.get(name), asked[name]) for name in asked if saved.get(name) != asked[name])
    return next((difference for difference in differing if difference[0] not in free), None)


def clear_debris(run: Run) -> None:
    """Remove what a run left that was killed before it began. The caller holds the run's lock."""
    if RunFolder(run.path).config_file.exists():
        return
    for entry in run.path.iterdir():
        if entry.name == ".lock" or not _DEBRIS.fullmatch(entry.name):
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def write_grid(runs: Sequence[Run], command: Sequence[str]) -> None:
    """Add a grid to comparison.json, in place of those that have no run which this one does not have."""
    out, names = runs[0].out, {run.name for run in runs}
    try:
        grids = read_grids(out)
    except UserError as error:
        say(f"{error}; it is replaced, without the grids that were in it")
        grids = []
    kept = [grid for grid in grids if not {cell.name for cell in grid.runs} <= names]
    grids = [*kept, Grid(list(command), [_cell_of(run) for run in runs])]
    write_json(out / "comparison.json", {"grids": [dataclasses.asdict(grid) for grid in grids]})


def read_grids(out: Path) -> list[Grid]:
    """The grids that commands asked for in a folder, the oldest first; an empty list if none did.

    Raises:
        UserError: comparison.json is damaged.
    """
    file = out / "comparison.json"
    try:
        grids = json.loads(file.read_bytes())["grids"]
        return [Grid(grid["command"], [Cell(**cell) for cell in grid["runs"]]) for grid in grids]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} cannot be read: {_in_words(error)}") from error


def write_wandb_sweep(file: Path, track: Sequence[str], command: Sequence[str], **sweep: Any) -> None:
    """Write a sweep over flags of a command of wn-rl, which W&B's agents can run, and say how to start it.

    track: where metrics go. sweep: further entries of the file: name, method, parameters.

    Raises:
        UserError: metrics do not go to W&B, whose agents would see nothing.
    """
    if "wandb" not in track:
        raise UserError("--wandb-sweep: an agent follows its runs in W&B: add --track jsonl wandb")
    sweep |= {
        "program": "wn-rl",
        "command": ["${env}", "${program}", *import_flags(), *command, "${args}"],
    }
    file.write_text(json.dumps(sweep, indent=2) + "\n")  # JSON is YAML
    print(f"a sweep is in {file}; start it with: wandb sweep {file}")


def _config_of(base: Config, arm: Arm, seed: int, out: Path) -> Config:
    values = {f"network.{name}": value for name, value in arm.options}
    if arm.learning_rate is not None:
        values["optimizer.learning_rate"] = arm.learning_rate
    config = changed(base, {"parameterization": arm.parameterization, "seed": seed, **values})
    return dataclasses.replace(beside_others(config, out), run_name=_cell_name(config))


def _cell_name(config: Config) -> str:
    """E.g. minatar-breakout-weight_norm-lr0.0003-seed1."""
    options = (f"{name}-{value}" for name, value in method_options(vars(config.network)).items())
    method = "-".join([config.parameterization, *options])
    return f"{config.suite}-{file_name(config.game)}-{method}-lr{config.learning_rate!r}-seed{config.seed}"


def _cell_of(run: Run) -> Cell:
    config, options = run.config, method_options(vars(run.config.network))
    method = config.parameterization, options, config.learning_rate
    return Cell(run.name, config.suite, config.game, *method, config.seed, config.steps)


def _contents(folder: Path) -> Iterator[Path]:
    """What is in a folder besides debris."""
    return (entry for entry in folder.iterdir() if not _DEBRIS.fullmatch(entry.name))


def _in_words(error: Exception) -> str:
    """One line on what is wrong with a file."""
    if isinstance(error, KeyError):
        return f"it has no {error}"
    text = error.strerror if isinstance(error, OSError) else str(error)
    return in_one_line(text or type(error).__name__)


def _why_failed(folder: RunFolder) -> str:
    """What status.json says of a run that failed; nothing for one that was stopped or killed."""
    try:
        status = json.loads(folder.status_file.read_bytes())
        return f"failed before: {status['message']}" if status["status"] == "failed" else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""
