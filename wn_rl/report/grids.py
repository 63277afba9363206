"""What `wn-rl compare` was asked for: a run that never began leaves no folder, and would not be missed."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wn_rl.report.records import Arm, LeftOut, Method
from wn_rl.report.words import counted, game_title, listed
from wn_rl.run.files import last_line


@dataclass(frozen=True)
class Cell:
    """One run of a grid, whether there is one or not."""

    folder: Path
    log: Path
    """What its process printed."""
    suite: str
    game: str
    arm: Arm
    seed: int

    def began(self) -> bool:
        """Whether it came so far as to have a config.json; a folder that may not be looked into is taken to."""
        try:
            return (self.folder / "config.json").exists()
        except PermissionError:
            return True


@dataclass(frozen=True)
class Grid:
    """What one command asked for."""

    command: str
    """As it would be typed."""
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class GridFile:
    """The comparison.json of a folder."""

    out: Path
    grids: tuple[Grid, ...]

    @property
    def cells(self) -> list[Cell]:
        """Every run that was asked for, once."""
        return list({cell.folder: cell for grid in self.grids for cell in grid.cells}.values())

    def missing(self) -> list[LeftOut]:
        """Runs without a config: each that failed as it was built, and by arm and game those without a folder."""
        missing = [cell for cell in self.cells if not cell.began()]
        failed = [LeftOut(cell.folder, _why_failed(cell)) for cell in missing if cell.folder.exists()]
        never_begun: dict[tuple[Arm, str], list[Cell]] = {}
        for cell in missing:
            if not cell.folder.exists():
                never_begun.setdefault((cell.arm, cell.game), []).append(cell)
        return failed + [LeftOut(self.out, _never_began(cells)) for cells in never_begun.values()]


def _why_failed(cell: Cell) -> str:
    """With the last line that its process printed."""
    return f"ended before it had a config.json; its log ends with: {last_line(cell.log) or 'nothing'}"


def _never_began(cells: Sequence[Cell]) -> str:
    """Runs of one arm and game."""
    arm, game = cells[0].arm.label, game_title(cells[0].game)
    seeds = listed([str(cell.seed) for cell in cells])
    return f"of its grid, {counted(len(cells), 'run')} never began: {arm} on {game}, seed {seeds}"


def read_grids(paths: Sequence[Path], runs: Sequence[Path]) -> tuple[list[GridFile], list[LeftOut]]:
    """What was asked for in the folders, or in those of the comparisons that the runs are of.

    Returns what could be read, and the files that could not.
    """
    folders = [*paths, *(run.parent.parent for run in runs if run.parent.name == "runs")]
    by_place = {folder.resolve(): folder for folder in folders}
    files, left_out = [], []
    for folder in by_place.values():
        file = folder / "comparison.json"
        try:
            grids = json.loads(file.read_bytes())["grids"]
            files.append(GridFile(folder, tuple(_grid(folder, grid) for grid in grids)))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            left_out.append(LeftOut(file, f"cannot be read: {error}"))
    return files, left_out


def _grid(out: Path, record: dict[str, Any]) -> Grid:
    command = shlex.join(map(str, record["command"]))
    return Grid(command, tuple(_cell(out, cell) for cell in record["runs"]))


def _cell(out: Path, record: dict[str, Any]) -> Cell:
    """From an entry of comparison.json (see `wn_rl.compare.grid.write_grid`)."""
    name = str(record["name"])
    return Cell(
        out / "runs" / name,
        out / "logs" / f"{name}.log",
        str(record["suite"]),
        str(record["game"]),
        Arm(
            Method(str(record["parameterization"]), tuple(record["options"].items())),
            float(record["learning_rate"]),
        ),
        int(record["seed"]),
    )
