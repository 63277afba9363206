"""Finding the folders of runs and reading what is in them: config.json, metrics.jsonl and status.json."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from wn_rl.config import method_options
from wn_rl.errors import UserError
from wn_rl.run.folder import RunFolder
from wn_rl.stats import FloatArray

Row = dict[str, Any]


_LABELS = {"weight_norm_mean_only_bn": "WN + mean-only BN"}


@dataclass(frozen=True)
class Method:
    """How the layers are parameterized: one side of a comparison, whatever its learning rate."""

    parameterization: str
    options: tuple[tuple[str, float | str], ...] = ()
    """`METHOD_OPTIONS` that are not at their defaults."""

    @property
    def label(self) -> str:
        """For tables and figures, e.g. "weight norm" or "weight norm (log scale 3)"."""
        name = _LABELS.get(self.parameterization, self.parameterization.replace("_", " "))
        options = ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in self.options)
        return f"{name} ({options})" if options else name


def _plain(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


@dataclass(frozen=True)
class Arm:
    """What is compared: a method at one learning rate."""

    method: Method
    rate: float

    @property
    def label(self) -> str:
        """E.g. "weight norm at 0.0003"."""
        return f"{self.method.label} at {self.rate:g}"


@dataclass(frozen=True)
class Run:
    """One readable run folder."""

    folder: Path
    record: dict[str, Any]
    """All of config.json."""
    rows: Sequence[Row]
    """All of metrics.jsonl."""
    status: str
    message: str
    """How the run ended, in its own words."""

    @property
    def config(self) -> dict[str, Any]:
        """The run's settings, nested as in config.json."""
        return dict(self.record["config"])

    @property
    def suite(self) -> str:
        return str(self.config["suite"])

    @property
    def game(self) -> str:
        return str(self.config["game"])

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def steps(self) -> int:
        """Agent steps that it was to make."""
        return int(self.config["steps"])

    @property
    def test_period(self) -> int:
        """Agent steps between tests: one epoch. 0 for no tests."""
        return int(self.config["evaluation"]["period"])

    @property
    def arm(self) -> Arm:
        """The method and learning rate."""
        network = self.config["network"]
        method = Method(str(self.config["parameterization"]), tuple(method_options(network).items()))
        return Arm(method, float(self.config["optimizer"]["learning_rate"]))

    @cached_property
    def last_step(self) -> int:
        """The last step that a row tells of; 0 without rows."""
        return max((int(row["step"]) for row in self.rows), default=0)

    @cached_property
    def tests(self) -> dict[int, float]:
        """Mean raw return of each test by epoch (1 is the first), NaN where it has no finite score."""
        if not self.test_period:
            return {}
        tested = [row for row in self.rows if "eval/return_mean" in row]
        return {int(row["step"]) // self.test_period: number(row["eval/return_mean"]) for row in tested}

    def scores(self, epochs: int) -> FloatArray:
        """Mean raw return of the first tests, float [epochs], NaN where one is missing."""
        return np.array([self.tests.get(epoch, math.nan) for epoch in range(1, epochs + 1)])

    def reached(self, step: int) -> bool:
        """Whether the run came this far, its test at the step included."""
        tested = not self.test_period or max(self.tests, default=0) >= step // self.test_period
        return self.last_step >= step and (tested or self.status == "finished")


@dataclass(frozen=True)
class LeftOut:
    """A folder that is not in the numbers, and why."""

    folder: Path
    reason: str
    run: Run | None = None
    """What is in it, if it could be read."""


def number(value: Any) -> float:
    """A metric as a float; NaN for what is missing, not finite or no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return math.nan
    return float(value)


def read_runs(paths: Sequence[Path]) -> tuple[list[Run], list[LeftOut]]:
    """Every run at or under the paths, and every folder that could not be read.

    Raises:
        UserError: a path has no run at or under it, or none of the runs can be read.
    """
    runs: dict[Path, Run] = {}  # by resolved folder: paths may overlap
    left_out: dict[Path, LeftOut] = {}
    for path in paths:
        folders = list(_find_runs(path, set())) if path.is_dir() else []
        if not folders:
            raise UserError(f"there is no run in {path}: name run folders, or folders that hold them")
        for folder in folders:
            try:
                runs[folder.resolve()] = read_run(folder)
            except (UserError, OSError) as error:
                left_out[folder.resolve()] = LeftOut(folder, f"cannot be read: {_reason(error)}")
    if not runs:
        first = next(iter(left_out.values()))
        raise UserError(f"no run can be read: {first.folder} {first.reason}")
    return list(runs.values()), list(left_out.values())


def _reason(error: Exception) -> str:
    """Its message, and the system's where that is behind it."""
    cause = error.__cause__
    return f"{error} ({cause.strerror})" if isinstance(cause, OSError) else str(error)


def _find_runs(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Folders that hold a config.json, or that cannot be looked into. A run holds no other run.

    seen: resolved folders that were looked into, for a link may lead to one of them.
    """
    place = folder.resolve()
    if place in seen:
        return
    seen.add(place)
    try:
        if (folder / "config.json").exists():
            yield folder
            return
        children = sorted(child for child in folder.iterdir() if child.is_dir())
    except PermissionError:
        yield folder
        return
    for child in children:
        yield from _find_runs(child, seen)


def read_run(folder: Path) -> Run:
    """One run.

    Raises:
        UserError: the folder is not one of a run, or its files are damaged.
    """
    files = RunFolder(folder)
    run = Run(folder, files.read_config(), read_rows(folder), **_read_status(files))
    try:
        _ = run.suite, run.game, run.seed, run.steps, run.test_period, run.arm
    except KeyError as error:
        raise UserError(f"config.json has no {error.args[0]}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"config.json is not that of a run: {error}") from error
    return run


def _read_status(files: RunFolder) -> dict[str, str]:
    """Status and message of status.json, which a run killed before its first step has not."""
    try:
        status = json.loads(files.status_file.read_bytes())
        return {"status": str(status["status"]), "message": str(status["message"])}
    except FileNotFoundError:
        return {"status": "not started", "message": ""}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"status.json is damaged: {error}") from error


def read_rows(folder: Path) -> list[Row]:
    """The whole rows of metrics.jsonl; a live run may be writing another.

    Raises:
        UserError: the folder has no metrics, or they are damaged.
    """
    try:
        text = RunFolder(folder).metrics_file.read_text()
        rows = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    except OSError as error:
        raise UserError(f"{folder} has no metrics: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"metrics.jsonl is damaged: {error}") from error
    if any(not isinstance(row, dict) or not isinstance(row.get("step"), int) for row in rows):
        raise UserError("metrics.jsonl is damaged: it has a row without a step")
    return rows


def series(rows: Sequence[Row], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric, rows without a finite one left out."""
    points = [(row["step"], number(row.get(name))) for row in rows]
    known = [(step, value) for step, value in points if not math.isnan(value)]
    return [step for step, _ in known], [value for _, value in known]
