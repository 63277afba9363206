"""Published scores to compare with, never trained or measured here, and other people's curves from CSV files."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from wn_rl.errors import UserError, counted

Scores = Mapping[str, Mapping[str, float]]
"""Game, then source (a name in `SOURCES`), to raw score."""
Curve = tuple[str, Sequence[tuple[int, float]]]
"""What the curve is called, and its points: agent steps, ascending, and mean raw return over seeds."""
Curves = Mapping[str, Sequence[Curve]]
"""By game."""

SOURCES = {
    "random": "Mnih et al. 2015, Extended Data Table 2: uniformly random actions",
    "human": "Mnih et al. 2015, Extended Data Table 2: professional human games tester",
    "dqn_nature": "Mnih et al. 2015, Extended Data Table 2: DQN, best network, 30 episodes of at most 5 minutes",
    "dqn_normal": "Salimans & Kingma 2016, Table 3: DQN, normal parameterization, maximum score",
    "dqn_weight_norm": "Salimans & Kingma 2016, Table 3: DQN, weight normalization, maximum score",
}
SHOWN = {"dqn_normal": "paper: normal", "dqn_weight_norm": "paper: weight norm", "dqn_nature": "Mnih et al."}
"""Sources that stand beside our scores, and what they are called there."""
_IN_THE_ORDER_OF_SOURCES = {
    "breakout": (1.7, 31.8, 401.2, 410.0, 403.0),
    "enduro": (0.0, 309.6, 301.8, 1250.0, 1448.0),
    "seaquest": (68.4, 20182.0, 5286.0, 7188.0, 7375.0),
    "space_invaders": (148.0, 1652.0, 1976.0, 1779.0, 2179.0),
}
REFERENCE_SCORES: Scores = {
    game: dict(zip(SOURCES, scores, strict=True)) for game, scores in _IN_THE_ORDER_OF_SOURCES.items()
}
"""Of games of the suite atari."""


def read_curves(files: Sequence[Path]) -> dict[str, dict[str, list[Curve]]]:
    """The curves of all files, by suite and game; the rows of a file are evaluations.

    Columns: game, agent_steps and mean_return; if there are any, suite (else all are of Atari) and seed.

    Raises:
        UserError: a file could not be read, or lacks these columns, or a cell is not a number.
    """
    found: dict[str, dict[str, list[Curve]]] = {}
    for file in files:
        evaluations = list(_evaluations_in(file))
        if not evaluations:
            raise UserError(f"--curves {file} has no row")
        for suite, game in dict.fromkeys(row[:2] for row in evaluations):
            scores = {row[2:4]: row[4] for row in evaluations if row[:2] == (suite, game)}
            points = [
                (at, float(np.mean([score for (_, step), score in scores.items() if step == at])))
                for at in sorted({step for _, step in scores})
            ]
            name = f"{file.stem} ({counted(len({seed for seed, _ in scores}), 'seed')})"
            found.setdefault(suite, {}).setdefault(game, []).append((name, points))
    return found


def _evaluations_in(file: Path) -> Iterator[tuple[str, str, str, int, float]]:
    """Suite, game, seed, step and score."""
    try:
        with file.open(newline="") as text:
            for row in csv.DictReader(text):
                score = float(row["mean_return"])
                if not math.isfinite(score):
                    raise ValueError(f"{row['mean_return']} is not a score")
                yield (
                    row.get("suite") or "atari",
                    row["game"],
                    row.get("seed") or "",
                    int(row["agent_steps"]),
                    score,
                )
    except KeyError as error:
        needed = "game, agent_steps and mean_return"
        raise UserError(f"--curves {file} has no column {error}: it needs {needed}") from error
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"--curves {file} could not be read: {error}") from error
