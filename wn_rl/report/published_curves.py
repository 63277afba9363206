"""What others have published of a suite's games, and their learning curves from a CSV file."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wn_rl.errors import UserError, counted

Curve = tuple[str, Sequence[tuple[int, float]]]
"""What the curve is called, and its points: agent steps, ascending, and mean raw return over seeds."""


@dataclass(frozen=True)
class Published:
    """What others have published of a suite's games."""

    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Game, then source, to raw score. The sources "random" and "human" make scales."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """What each source is."""
    shown: Mapping[str, str] = field(default_factory=dict)
    """Sources that stand beside our scores, and what they are called there."""
    curves: Mapping[str, Sequence[Curve]] = field(default_factory=dict)
    """By game."""


def read_curves(files: Sequence[Path]) -> dict[str, dict[str, list[Curve]]]:
    """The curves of all files, by suite and game; the rows of a file are evaluations.

    Columns: game, agent_steps and mean_return; if there are any, suite (else all are of Atari) and seed.

    Raises:
        UserError: a file could not be read, or lacks these columns, or a cell is not a number.
    """
    found: dict[str, dict[str, list[Curve]]] = {}
    for file in files:
        for (suite, game), evaluations in _evaluations_in(file).items():
            steps = sorted({step for _, step in evaluations})
            at = {step: [score for (_, other), score in evaluations.items() if other == step] for step in steps}
            points = [(step, float(np.mean(scores))) for step, scores in at.items()]
            name = f"{file.stem} ({counted(len({seed for seed, _ in evaluations}), 'seed')})"
            found.setdefault(suite, {}).setdefault(game, []).append((name, points))
    return found


def _evaluations_in(file: Path) -> dict[tuple[str, str], dict[tuple[str, int], float]]:
    """Scores by suite and game, then by seed and step."""
    found: dict[tuple[str, str], dict[tuple[str, int], float]] = {}
    try:
        with file.open(newline="") as text:
            for row in csv.DictReader(text):
                score = float(row["mean_return"])
                if not math.isfinite(score):
                    raise ValueError(f"{row['mean_return']} is not a score")
                evaluations = found.setdefault((row.get("suite") or "atari", row["game"]), {})
                evaluations[row.get("seed") or "", int(row["agent_steps"])] = score
    except KeyError as error:
        needed = "game, agent_steps and mean_return"
        raise UserError(f"--curves {file} has no column {error}: it needs {needed}") from error
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"--curves {file} could not be read: {error}") from error
    if not found:
        raise UserError(f"--curves {file} has no row")
    return found
