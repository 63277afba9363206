"""What `wn-rl compare` was asked for. A run that never began leaves no folder, so it would not be missed."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wn_rl.arms import Arm
from wn_rl.errors import counted
from wn_rl.files import last_line
from wn_rl.report.read import LeftOut
from wn_rl.report.words import game_title, listed


@dataclass(frozen=True)
class Cell:
    """One run that was asked for, whether it began or not."""

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
    """From an entry of comparison.json (see `wn_rl.sweep.write_grid`)."""
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
