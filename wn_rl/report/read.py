"""Finding the folders of runs, what the report needs of each, and what `wn-rl compare` was asked for."""

import json
import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from wn_rl.compare.arms import Arm
from wn_rl.config import flat, method_options
from wn_rl.errors import UserError, counted
from wn_rl.report.stats import FloatArray
from wn_rl.report.words import game_title, listed
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

    @cached_property
    def evaluations(self) -> dict[int, float]:
        """Mean raw return of each evaluation by epoch, from 1; NaN for an evaluation without a finite score."""
        if not self.evaluation_period:
            return {}
        rows = [row for row in self.rows if "eval/return_mean" in row]
        return {int(row["step"]) // self.evaluation_period: number(row["eval/return_mean"]) for row in rows}

    def scores(self, epochs: int) -> FloatArray:
        """Mean raw return of the first evaluations, float [epochs]; NaN where one is missing."""
        return np.array([self.evaluations.get(epoch, math.nan) for epoch in range(1, epochs + 1)])

    def reached(self, step: int) -> bool:
        """Whether the run came this far, including the evaluation at the step."""
        epoch = step // self.evaluation_period if self.evaluation_period else 0
        evaluated = max(self.evaluations, default=0) >= epoch or self.status.status == "finished"
        return self.last_step >= step and evaluated

    @cached_property
    def versions(self) -> dict[str, str]:
        """What config.json records of the code and its libraries; empty without a record."""
        versions = self.record.get("versions")
        return {name: str(v) for name, v in versions.items() if v} if isinstance(versions, dict) else {}

    @property
    def machine(self) -> str:
        """Where the run was made; older records have the device and the version of torch only."""
        older = f"{self.settings.get('device', 'unknown device')}, torch {self.versions.get('torch', 'unknown')}"
        return str(self.record.get("machine") or older)

    @property
    def frames_per_second(self) -> float:
        """Median over the rows of metrics; NaN without one."""
        _, values = series(self.rows, "frames_per_second")
        return float(np.median(values)) if values else math.nan


@dataclass(frozen=True)
class LeftOut:
    """A folder that is not in the numbers, and why."""

    folder: Path
    reason: str
    run: Run | None = None
    """None if the folder could not be read."""


def number(value: Any) -> float:
    """A metric as a float; NaN for what is missing, not finite or not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return math.nan
    return float(value)


def series(rows: Sequence[Row], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric; rows without a finite value are left out."""
    points = [(row["step"], number(row.get(name))) for row in rows]
    known = [(step, value) for step, value in points if not math.isnan(value)]
    return [step for step, _ in known], [value for _, value in known]


def read_runs(paths: Sequence[Path]) -> tuple[list[Run], list[LeftOut]]:
    """Every run at or under the paths, and every folder that could not be read.

    Raises:
        UserError: a path has no run at or under it, or none of the runs could be read.
    """
    runs: dict[Path, Run] = {}  # by resolved folder, since paths may overlap
    left_out: dict[Path, LeftOut] = {}
    for path in paths:
        folders = list(_find_runs(path, set())) if path.is_dir() else []
        if not folders:
            raise UserError(f"there is no run in {path}: name run folders, or folders that hold them")
        for folder in folders:
            try:
                runs[folder.resolve()] = read_run(folder)
            except (UserError, OSError) as error:
                left_out[folder.resolve()] = LeftOut(folder, f"could not be read: {_reason(error)}")
    if not runs:
        first = next(iter(left_out.values()))
        raise UserError(f"none of the runs could be read: {first.folder} {first.reason}")
    return list(runs.values()), list(left_out.values())


def _reason(error: Exception) -> str:
    """The error's message, and the system's if it caused the error."""
    cause = error.__cause__
    return f"{error} ({cause.strerror})" if isinstance(cause, OSError) else str(error)


def _find_runs(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Folders that hold a config.json, or that may not be listed. A run holds no other run.

    seen: resolved folders that were visited, since a link may lead back to one of them.
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
        UserError: the folder does not hold a run, or its files are damaged.
        OSError: a file could not be read.
    """
    files = RunFolder(folder)
    record = files.read_config()
    rows, status = files.read_rows(), files.read_status()
    try:
        settings = flat(record["config"])
        suite, game, parameterization = (str(settings[name]) for name in ("suite", "game", "parameterization"))
        seed, steps, period = (int(settings[name]) for name in ("seed", "steps", "evaluation.period"))
        options = tuple(method_options(record["config"]["network"]).items())
        arm = Arm(parameterization, float(settings["optimizer.learning_rate"]), options)
    except KeyError as error:
        raise UserError(f"config.json has no {error.args[0]}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"config.json does not describe a run: {error}") from error
    return Run(folder, record, settings, rows, status, suite, game, arm, seed, steps, period)


@dataclass(frozen=True)
class Cell:
    """One run that was asked for, whether it began or not.

    A run that never began leaves no folder, so it would not be missed.
    """

    out: Path
    """Folder of the comparison.json."""
    name: str
    suite: str
    game: str
    arm: Arm
    seed: int

    @property
    def folder(self) -> Path:
        return self.out / "runs" / self.name

    def began(self) -> bool:
        """Whether the run has a config.json. If the folder may not be read, we assume so."""
        try:
            return (self.folder / "config.json").exists()
        except PermissionError:
            return True


Grids = dict[str, list[Cell]]
"""The runs that each command asked for; commands as they would be typed."""


def read_grids(paths: Sequence[Path], runs: Sequence[Path]) -> tuple[Grids, list[LeftOut]]:
    """The grids in these folders and in the folders of the comparisons that the runs belong to.

    Returns the grids that could be read, and the files that could not.
    """
    folders = [*paths, *(run.parent.parent for run in runs if run.parent.name == "runs")]
    grids: Grids = {}
    left_out = []
    for out in {folder.resolve(): folder for folder in folders}.values():
        try:
            for grid in json.loads((out / "comparison.json").read_bytes())["grids"]:
                cells = [_cell(out, **cell) for cell in grid["runs"]]
                grids.setdefault(shlex.join(map(str, grid["command"])), []).extend(cells)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            left_out.append(LeftOut(out / "comparison.json", f"could not be read: {error}"))
    return grids, left_out


def _cell(out: Path, *, name: str, suite: str, game: str, seed: int, **arm: Any) -> Cell:
    """From an entry of comparison.json (see `wn_rl.compare.grid.write_grid`)."""
    options = tuple(arm["options"].items())
    return Cell(out, name, suite, game, Arm(arm["parameterization"], float(arm["learning_rate"]), options), seed)


def missing_runs(grids: Grids) -> list[LeftOut]:
    """Runs without a config: each that failed at its start, and, by arm and game, those that never began."""
    cells = {cell.folder: cell for asked in grids.values() for cell in asked}
    failed = []
    never_began: dict[tuple[Path, Arm, str], list[str]] = {}
    for cell in [cell for cell in cells.values() if not cell.began()]:
        if cell.folder.exists():
            said = last_line(cell.out / "logs" / f"{cell.name}.log") or "nothing"
            failed.append(LeftOut(cell.folder, f"ended before it had a config.json; its log ends with: {said}"))
        else:
            never_began.setdefault((cell.out, cell.arm, cell.game), []).append(str(cell.seed))
    return failed + [
        LeftOut(
            out,
            f"{counted(len(seeds), 'run')} never began: {arm.label} on {game_title(game)}, seed {listed(seeds)}",
        )
        for (out, arm, game), seeds in never_began.items()
    ]
