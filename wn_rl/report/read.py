"""Finding the folders of runs, what the report needs of each, and what `wn-rl compare` was asked for."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from wn_rl.compare import grid
from wn_rl.compare.arms import Arm
from wn_rl.config import flat
from wn_rl.errors import UserError
from wn_rl.presets import method_options
from wn_rl.report.stats import FloatArray
from wn_rl.run.files import last_line
from wn_rl.run.folder import Row, RunFolder, RunStatus


@dataclass(frozen=True)
class Run:
    """One readable run folder."""

    folder: Path
    record: dict[str, Any]
    """All of config.json."""
    settings: dict[str, Any]
    """The run's config, names with dots, e.g. "learning.batch_size"."""
    rows: Sequence[Row]
    """All of metrics.jsonl."""
    status: RunStatus
    suite: str
    game: str
    arm: Arm
    seed: int
    steps: int
    """Agent steps that the run was to make."""
    evaluation_period: int
    """Agent steps between evaluations, which is one epoch; 0 without evaluations."""

    @cached_property
    def last_step(self) -> int:
        """The last step that has a row; 0 without rows."""
        return max((int(row["step"]) for row in self.rows), default=0)

    def epochs_until(self, step: int) -> int:
        """Evaluations up to a step; 0 without evaluations."""
        return step // self.evaluation_period if self.evaluation_period else 0

    @cached_property
    def evaluations(self) -> dict[int, float]:
        """Mean raw return of each evaluation by epoch, from 1; NaN for an evaluation without a finite score."""
        rows = [row for row in self.rows if "eval/return_mean" in row]
        return {self.epochs_until(row["step"]): number(row["eval/return_mean"]) for row in rows}

    def scores(self, epochs: int) -> FloatArray:
        """Mean raw return of the first evaluations, float [epochs]; NaN where one is missing."""
        return np.array([self.evaluations.get(epoch, math.nan) for epoch in range(1, epochs + 1)])

    def reached(self, step: int) -> bool:
        """Whether the run came this far, including the evaluation at the step."""
        evaluated = max(self.evaluations, default=0) >= self.epochs_until(step)
        return self.last_step >= step and (evaluated or self.status.status == "finished")

    @cached_property
    def versions(self) -> str:
        """What config.json records of the code and its libraries; empty without a record."""
        versions = self.record.get("versions", {})
        return ", ".join(f"{name} {version}" for name, version in versions.items() if version)

    @property
    def machine(self) -> str:
        """Where the run was made."""
        return str(self.record.get("machine", "unknown"))

    @property
    def frames_per_second(self) -> float:
        """Median over the rows of metrics; NaN without one."""
        _, values = series(self.rows, "frames_per_second")
        return float(np.median(values)) if values else math.nan


@dataclass(frozen=True)
class LeftOut:
    """A folder or file that is not in the numbers, and why."""

    folder: Path
    reason: str
    run: Run | None = None
    """None if it could not be read."""


def number(value: Any) -> float:
    """A metric as a float; NaN for what is missing, not finite or not a number."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan


def series(rows: Sequence[Row], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric; rows without a finite value are left out."""
    known = [(row["step"], value) for row in rows if not math.isnan(value := number(row.get(name)))]
    return [step for step, _ in known], [value for _, value in known]


def read_runs(paths: Sequence[Path]) -> tuple[list[Run], list[LeftOut]]:
    """Every run at or under the paths, and every folder that could not be read.

    Raises:
        UserError: a path has no run at or under it, or none of the runs could be read.
    """
    runs: dict[Path, Run] = {}  # by resolved folder, since paths may overlap
    left_out: dict[Path, LeftOut] = {}
    for path in paths:
        folders = sorted(_find_runs(path))
        if not folders:
            raise UserError(f"there is no run in {path}: name run folders, or folders that hold them")
        for folder in folders:
            try:
                runs[folder.resolve()] = read_run(folder)
            except (UserError, OSError) as error:
                system = f" ({error.__cause__.strerror})" if isinstance(error.__cause__, OSError) else ""
                left_out[folder.resolve()] = LeftOut(folder, f"could not be read: {error}{system}")
    if not runs:
        first = next(iter(left_out.values()))
        raise UserError(f"none of the runs could be read: {first.folder} {first.reason}")
    return list(runs.values()), list(left_out.values())


def _find_runs(top: Path) -> Iterator[Path]:
    """Folders that hold a config.json, or that may not be listed. A run holds no other run."""
    locked: list[OSError] = []
    seen: set[str] = set()  # a link may lead back
    for folder, children, files in os.walk(top, onerror=locked.append, followlinks=True):
        place = os.path.realpath(folder)
        if "config.json" in files:
            yield Path(folder)
        if "config.json" in files or place in seen:
            children.clear()
        children.sort()
        seen.add(place)
    yield from (Path(error.filename) for error in locked if isinstance(error, PermissionError))


def read_run(folder: Path) -> Run:
    """One run.

    Raises:
        UserError: the folder does not hold a run, or its files are damaged.
        OSError: a file could not be read.
    """
    files = RunFolder(folder)
    record, rows, status = files.read_config(), files.read_rows(), files.read_status()
    try:
        settings = flat(record["config"])
        suite, game, parameterization = (str(settings[name]) for name in ("suite", "game", "parameterization"))
        seed, steps, period = (int(settings[name]) for name in ("seed", "steps", "evaluation.period"))
        options = tuple(method_options(record["config"]).items())
        arm = Arm(parameterization, float(settings["optimizer.learning_rate"]), options)
    except KeyError as error:
        raise UserError(f"config.json has no {error.args[0]}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"config.json does not describe a run: {error}") from error
    files.require_unchanged(settings)
    return Run(folder, record, settings, rows, status, suite, game, arm, seed, steps, period)


def read_grids(paths: Sequence[Path], runs: Sequence[Path]) -> tuple[list[grid.Grid], list[LeftOut]]:
    """What `wn-rl compare` was asked for in these folders and in those of the comparisons that the runs belong to.

    Returns the grids that could be read; and the files that could not, with the runs that have no config.
    """
    folders = [*paths, *(run.parent.parent for run in runs if run.parent.name == "runs")]
    grids: list[grid.Grid] = []
    left_out = []
    for out in {folder.resolve(): folder for folder in folders}.values():
        try:
            grids += grid.read_grids(out)
        except UserError as error:
            left_out.append(LeftOut(out / "comparison.json", str(error)))
    for planned in {each.folder: each for asked in grids for each in asked.runs if not each.began}.values():
        said = last_line(planned.out / "logs" / f"{planned.name}.log") or "nothing"
        start = f"ended before it had a config.json; its log ends with: {said}"
        left_out.append(LeftOut(planned.folder, start if planned.folder.exists() else "never began"))
    return grids, left_out
