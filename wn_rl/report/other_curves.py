"""Learning curves of other people's runs, from a CSV file, to draw beside ours."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wn_rl.errors import UserError
from wn_rl.stats import FloatArray

_NEEDED = ("game", "agent_steps", "mean_return")


@dataclass(frozen=True)
class OtherCurve:
    """Mean raw return in one game against agent steps."""

    name: str
    """Of the file, without its ending."""
    num_seeds: int
    steps: NDArray[np.int64]
    """[tests], ascending."""
    returns: FloatArray
    """Mean over the seeds that have the test [tests]."""

    def until(self, step: int) -> "OtherCurve | None":
        """The tests up to a step; None if there is none."""
        early = self.steps <= step
        if not early.any():
            return None
        return OtherCurve(self.name, self.num_seeds, self.steps[early], self.returns[early])


Curves = Mapping[str, Mapping[str, Sequence[OtherCurve]]]
"""By suite and game."""


def read_curves(files: Sequence[Path]) -> Curves:
    """The curves of all files, whose rows are tests.

    Columns: game, agent_steps and mean_return; if there are any, suite (else all are of Atari) and seed.

    Raises:
        UserError: a file cannot be read, or has not these columns or numbers in them.
    """
    found: dict[str, dict[str, list[OtherCurve]]] = {}
    for file in files:
        for (suite, game), tests in _tests_in(file).items():
            found.setdefault(suite, {}).setdefault(game, []).append(_mean_curve(file.stem, tests))
    return found


_Tests = dict[tuple[str, int], float]  # by seed and step


def _tests_in(file: Path) -> dict[tuple[str, str], _Tests]:
    """By suite and game."""
    found: dict[tuple[str, str], _Tests] = {}
    try:
        with file.open(newline="") as text:
            for row in csv.DictReader(text):
                score = float(row["mean_return"])
                if not math.isfinite(score):
                    raise ValueError(f"{row['mean_return']} is no score")
                tests = found.setdefault((row.get("suite") or "atari", row["game"]), {})
                tests[row.get("seed") or "", int(row["agent_steps"])] = score
    except KeyError as error:
        raise UserError(f"--curves {file} has no column {error}: it needs {', '.join(_NEEDED)}") from error
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"--curves {file} cannot be read: {error}") from error
    if not found:
        raise UserError(f"--curves {file} has no row")
    return found


def _mean_curve(name: str, tests: _Tests) -> OtherCurve:
    steps = sorted({step for _, step in tests})
    at_step: dict[int, list[float]] = {step: [] for step in steps}
    for (_, step), score in tests.items():
        at_step[step].append(score)
    returns = np.array([np.mean(at_step[step]) for step in steps])
    return OtherCurve(name, len({seed for seed, _ in tests}), np.array(steps), returns)
