"""What `wn-rl compare` was asked for: a run that never began leaves no folder, and would not be missed."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wn_rl.report.records import LeftOut


@dataclass(frozen=True)
class Grid:
    """The comparison.json of a folder."""

    command: str
    """As it would be typed."""
    runs: tuple[Path, ...]
    """The folder of every run of the grid, whether there is one or not."""

    def never_begun(self) -> list[LeftOut]:
        """Runs without a folder."""
        missing = [run for run in self.runs if not run.exists()]
        return [LeftOut(run, "is in the grid of comparison.json, and never began") for run in missing]


def read_grids(paths: Sequence[Path]) -> tuple[list[Grid], list[LeftOut]]:
    """The grids of the folders that have one, and the files that could not be read."""
    grids, left_out = [], []
    for path in paths:
        file = path / "comparison.json"
        try:
            record = json.loads(file.read_bytes())
            runs = tuple(path / "runs" / str(cell["name"]) for cell in record["runs"])
            grids.append(Grid(shlex.join(map(str, record["command"])), runs))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            left_out.append(LeftOut(file, f"cannot be read: {error}"))
    return grids, left_out
