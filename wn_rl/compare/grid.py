"""A comparison as data: games x arms x seeds become runs, each a function of its Config, each in a folder.

    OUT/comparison.json              the grids that were asked for
    OUT/runs/NAME/                   one run, as `wn-rl train` makes it
    OUT/logs/NAME.log                what the run's process printed

A name says which cell of the grid a run is, so the same command finds its runs again: whatever stopped it.
"""

import dataclasses
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wn_rl.compare.arms import Arm
from wn_rl.config import Config, from_json, method_options, to_json
from wn_rl.errors import UserError, in_one_line, say
from wn_rl.extensions import import_flags
from wn_rl.presets import PRESETS
from wn_rl.runs import RunFolder, file_name, write_json

# How and where a run is computed, not what: these may differ from one invocation to the next.
_CIRCUMSTANCES = {
    *("device", "track", "run_name", "group", "keep_replay", "torch_threads", "checkpoint_period"),
    *("environment.emulator_threads", "environment.processes"),
}
# What a run may leave that was killed before it wrote its config: it never took a step.
_DEBRIS = re.compile(r"\.lock|\.config\.json\.\d+\.tmp|wandb|tensorboard")


@dataclass(frozen=True)
class Run:
    """One cell of the grid: what it is (config), and the folder of the comparison that it belongs to."""

    config: Config
    out: Path

    @property
    def name(self) -> str:
        """The name of its folder, e.g. minatar-breakout-weight_norm-lr0.0003-seed1."""
        config = self.config
        method = "-".join([config.parameterization, *(f"{name}-{value}" for name, value in self.options.items())])
        rate = repr(config.learning_rate)
        return f"{config.suite}-{file_name(config.game)}-{method}-lr{rate}-seed{config.seed}"

    @property
    def options(self) -> dict[str, float | str]:
        """The method's options that are not at their defaults."""
        return method_options(vars(self.config.network))

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.out / "runs" / self.name

    @property
    def log(self) -> Path:
        """The file that its process prints to."""
        return self.out / "logs" / f"{self.name}.log"


@dataclass(frozen=True)
class Found:
    """What there is of a run on disk. `began` is any end but the last step: it can be resumed.

    message: why the folder is unreadable, or why the run failed when it was last tried.
    """

    state: Literal["new", "began", "finished", "unreadable"]
    message: str = ""


def expand(bases: Sequence[Config], arms: Sequence[Arm], seeds: Iterable[int], out: Path) -> tuple[Run, ...]:
    """The runs of the grid: seeds outermost, so that what is finished first is a comparison already.

    bases: one for each game: the settings that all its runs share. A run has one torch thread unless they
    say more: many runs share the cores.

    Raises:
        UserError: an axis is empty, or names something twice.
        ValueError: a config cannot be.
    """
    runs = tuple(Run(_config_of(base, arm, seed, out), out) for seed in seeds for base in bases for arm in arms)
    if not runs:
        raise UserError("the grid is empty: it needs at least one game, one arm and one seed")
    names = [run.name for run in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"the grid names the run {twice} twice: a game or an arm is given twice")
    return tuple(dataclasses.replace(run, config=_named(run)) for run in runs)


def one_of_many(config: Config, out: Path) -> Config:
    """The config of a run that shares the cores with others: one torch thread, unless it says how many.

    out: the folder of them all, which names their group.
    """
    group = config.group or out.resolve().name
    return dataclasses.replace(config, torch_threads=config.torch_threads or 1, group=group)


def require_tests(config: Config) -> None:
    """UserError if a run would end without a test, from which its score comes."""
    if not 0 < config.evaluation.period <= config.steps:
        raise UserError(
            f"--evaluation.period {config.evaluation.period} gives a run of {config.steps} steps no test, "
            f"and its score comes from tests"
        )


def flags_of(config: Config) -> list[str]:
    """The arguments of `wn-rl train` that give this config: the preset, and what differs from it."""
    preset = PRESETS[config.preset](config.game)
    return [config.game, "--preset", config.preset, *differing_flags(config, preset)]


def differing_flags(part: Any, default: Any, prefix: str = "") -> Iterator[str]:
    """The flags, as tyro reads them, of the fields of a dataclass that differ from another of its kind."""
    for field in dataclasses.fields(part):
        value, preset = getattr(part, field.name), getattr(default, field.name)
        name = field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            yield from differing_flags(value, preset, f"{prefix}{name}.")
        elif value != preset:
            yield from _flag(prefix, name, value)


def look(run: Run) -> Found:
    """What there is of a run, its folder left as it is.

    Raises:
        UserError: the folder holds a run with other settings.
    """
    folder = RunFolder(run.path)
    try:
        if not folder.path.exists() or (folder.path.is_dir() and not _entries(folder.path)):
            return Found("new")
        saved = from_json(json.loads(folder.config_file.read_bytes())["config"])
    except FileNotFoundError:
        return Found("unreadable", f"{folder.path} has no config.json, and is not empty")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        return Found("unreadable", f"{folder.config_file} cannot be read: {_in_words(error)}")
    _require_same(run, saved)
    return Found("finished") if folder.is_finished() else Found("began", _why_failed(folder))


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
    """Add the grid to comparison.json, for reports and for whoever finds the folder.

    Grids that were asked for before stay in it, but for those that have no run which this one has not.
    """
    file = runs[0].out / "comparison.json"
    cells = [
        {
            "name": run.name,
            "suite": run.config.suite,
            "game": run.config.game,
            "parameterization": run.config.parameterization,
            "options": run.options,
            "learning_rate": run.config.learning_rate,
            "seed": run.config.seed,
            "steps": run.config.steps,
        }
        for run in runs
    ]
    names = {run.name for run in runs}
    earlier = [grid for grid in _grids_in(file) if not {cell["name"] for cell in grid["runs"]} <= names]
    write_json(file, {"grids": [*earlier, {"command": list(command), "runs": cells}]})


def _grids_in(file: Path) -> list[dict[str, Any]]:
    """The grids of a comparison.json; none, and a line that says so, if it is damaged."""
    try:
        grids = json.loads(file.read_bytes())["grids"]
        _ = [cell["name"] for grid in grids for cell in grid["runs"]]
        return list(grids)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        say(f"{file} cannot be read and is written anew, without the grids that were in it: {_in_words(error)}")
        return []


def wandb_sweep_of_runs(name: str, command: Sequence[str], runs: Sequence[Run]) -> dict[str, Any]:
    """A sweep that W&B's agents can run, each run of the grid once, in the same folders.

    Its one parameter is the name of a run: arms of unlike rates are no product, and so every agent resumes
    what another left. command: `compare` with the flags of the grid.
    """
    return wandb_sweep(name, "grid", command, {"only": {"values": [run.name for run in runs]}})


def wandb_sweep(
    name: str, method: str, command: Sequence[str], parameters: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """A sweep of W&B over flags of a command of wn-rl, for `write_wandb_sweep`."""
    return {
        "name": name,
        "program": "wn-rl",
        "method": method,
        "parameters": parameters,
        "command": ["${env}", "${program}", *import_flags(), *command, "${args}"],
        **more,
    }


def write_wandb_sweep(file: Path, sweep: dict[str, Any], track: Sequence[str]) -> None:
    """Put a sweep into a file, and say how to start it. track: where metrics go.

    Raises:
        UserError: not to W&B, whose agents would see nothing.
    """
    if "wandb" not in track:
        raise UserError("--wandb-sweep: an agent follows its runs in W&B: add --track jsonl wandb")
    file.write_text(json.dumps(sweep, indent=2) + "\n")  # JSON is YAML
    print(f"a sweep is in {file}; start it with: wandb sweep {file}")


def _config_of(base: Config, arm: Arm, seed: int, out: Path) -> Config:
    optimizer, options = base.optimizer, dict[str, Any](arm.options)
    if arm.learning_rate is not None:
        optimizer = dataclasses.replace(optimizer, learning_rate=arm.learning_rate)
    changed = dataclasses.replace(
        base,
        parameterization=arm.parameterization,
        network=dataclasses.replace(base.network, **options),
        optimizer=optimizer,
        seed=seed,
    )
    return one_of_many(changed, out)


def _named(run: Run) -> Config:
    """Its config with what depends on the cell: the run's name, and the rate resolved."""
    optimizer = dataclasses.replace(run.config.optimizer, learning_rate=run.config.learning_rate)
    return dataclasses.replace(run.config, run_name=run.name, optimizer=optimizer)


def _flag(prefix: str, name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{prefix}{'' if value else 'no-'}{name}"]
    values = value if isinstance(value, tuple) else (value,)
    return [f"--{prefix}{name}", *map(str, values)]


def _entries(folder: Path) -> list[str]:
    """What is in a folder besides debris."""
    return [entry.name for entry in folder.iterdir() if not _DEBRIS.fullmatch(entry.name)]


def _in_words(error: Exception) -> str:
    """One line on what is wrong with a file."""
    if isinstance(error, KeyError):
        return f"it has no {error}"
    text = error.strerror if isinstance(error, OSError) else str(error)
    return in_one_line(text or type(error).__name__)


def _require_same(run: Run, saved: Config) -> None:
    difference = difference_in_kind(saved, run.config)
    if difference:
        name, theirs, ours = difference
        raise UserError(
            f"{run.path} was started with {name} {theirs!r}, and the grid asks for {ours!r}: "
            f"ask for the same, or choose another --out"
        )


def difference_in_kind(saved: Config, asked: Config) -> tuple[str, Any, Any] | None:
    """The first setting that decides what a run computes and differs: its name, and both values."""
    theirs, ours = dict(_leaves(to_json(saved))), dict(_leaves(to_json(asked)))
    for name in ours:
        if name not in _CIRCUMSTANCES and ours[name] != theirs[name]:
            return name, theirs[name], ours[name]
    return None


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _why_failed(folder: RunFolder) -> str:
    """What status.json says of a run that failed; nothing of one that was stopped or killed."""
    try:
        status = json.loads(folder.status_file.read_bytes())
        return f"failed before: {status['message']}" if status["status"] == "failed" else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""
