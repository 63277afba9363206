"""The numbers of a comparison: scores of arms, differences between them, and aggregates over games."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from wn_rl import stats
from wn_rl.report.comparison import BASELINE, Choice, Comparison
from wn_rl.report.records import Arm
from wn_rl.stats import Band, Estimate, FloatArray

METRICS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "maximum": lambda scores: np.nanmax(scores, axis=1),
    "final": lambda scores: scores[:, -1],
    "area": stats.area_under_curve,
}
"""Numbers of a run's tests: [seeds, epochs] to [seeds]. maximum is that of the paper's Table 3; final is the test
at the last step; area is the mean height of the learning curve."""


@dataclass(frozen=True)
class References:
    """Published scores of a suite's games, "random" and "human" among them if known, and what each source is."""

    scores: Mapping[str, Mapping[str, float]]
    sources: Mapping[str, str]


def run_scores(comparison: Comparison, arm: Arm, game: str, metric: str) -> FloatArray:
    """The metric of each run, float [seeds]; runs without it (their last test is missing, say) are left out."""
    if not comparison.has(arm, game):
        return np.zeros(0)
    values = METRICS[metric](comparison.scores(arm, game))
    known: FloatArray = values[~np.isnan(values)]
    return known


@dataclass(frozen=True)
class ArmScore:
    """One metric of one arm in one game, over seeds."""

    arm: Arm
    game: str
    metric: str
    scores: FloatArray
    mean: Estimate


def arm_scores(comparison: Comparison, rng: np.random.Generator) -> list[ArmScore]:
    """Every arm in every game that it has scores in, by each metric."""
    found = []
    for game, arm, metric in product(comparison.games, comparison.arms, METRICS):
        scores = run_scores(comparison, arm, game, metric)
        if scores.size:
            found.append(ArmScore(arm, game, metric, scores, stats.bootstrap(stats.mean, [scores], rng=rng)))
    return found


@dataclass(frozen=True)
class GameDifference:
    """Two arms in one game by one metric: raw scores, unpaired."""

    game: str
    metric: str
    treatment: FloatArray
    baseline: FloatArray
    difference: Estimate
    improvement: Estimate
    """Probability that a run of the treatment scores more."""


@dataclass(frozen=True)
class OverGames:
    """Two arms over the games that both have, by one metric. The scale: 0 is a score of zero, or the random
    policy's where that is published, and 1 the baseline's mean in that game."""

    metric: str
    games: tuple[str, ...]
    improvement: Estimate
    treatment_iqm: Estimate | None
    """Interquartile mean over games and seeds; None where the scale does not exist for one of the games."""
    baseline_iqm: Estimate | None
    iqm_difference: Estimate | None


@dataclass(frozen=True)
class Contrast:
    """A treatment against a baseline."""

    treatment: Arm
    baseline: Arm
    games: tuple[GameDifference, ...]
    over_games: tuple[OverGames, ...]
    """By metric; empty if the two arms share fewer than two games."""

    def of(self, metric: str) -> list[GameDifference]:
        """The games by one metric."""
        return [game for game in self.games if game.metric == metric]


def contrast(
    comparison: Comparison,
    treatment: Arm,
    baseline: Arm,
    references: References | None,
    rng: np.random.Generator,
) -> Contrast | None:
    """The treatment against the baseline in every game that both have; None if there is none."""
    by_game, over_games = [], []
    for metric in METRICS:
        pairs = {
            game: (run_scores(comparison, treatment, game, metric), run_scores(comparison, baseline, game, metric))
            for game in comparison.games
        }
        pairs = {game: pair for game, pair in pairs.items() if pair[0].size and pair[1].size}
        by_game += [_game_difference(game, metric, *pair, rng) for game, pair in pairs.items()]
        if len(pairs) > 1:
            over_games.append(_over_games(metric, pairs, references, rng))
    return Contrast(treatment, baseline, tuple(by_game), tuple(over_games)) if by_game else None


def _game_difference(
    game: str, metric: str, treatment: FloatArray, baseline: FloatArray, rng: np.random.Generator
) -> GameDifference:
    difference = stats.bootstrap(stats.difference_of_means, [treatment], [baseline], rng=rng)
    improvement = stats.bootstrap(stats.probability_of_improvement, [treatment], [baseline], rng=rng)
    return GameDifference(game, metric, treatment, baseline, difference, improvement)


def _over_games(
    metric: str,
    pairs: Mapping[str, tuple[FloatArray, FloatArray]],
    references: References | None,
    rng: np.random.Generator,
) -> OverGames:
    treatment = [pair[0] for pair in pairs.values()]
    baseline = [pair[1] for pair in pairs.values()]
    improvement = stats.bootstrap(stats.probability_of_improvement, treatment, baseline, rng=rng)
    low = [_published(references, game, "random", 0.0) for game in pairs]
    high = [float(scores.mean()) for scores in baseline]
    if any(bottom >= top for bottom, top in zip(low, high, strict=True)):
        return OverGames(metric, tuple(pairs), improvement, None, None, None)
    treatment, baseline = stats.normalize(treatment, low, high), stats.normalize(baseline, low, high)
    return OverGames(
        metric,
        tuple(pairs),
        improvement,
        stats.bootstrap(stats.interquartile_mean, treatment, rng=rng),
        stats.bootstrap(stats.interquartile_mean, baseline, rng=rng),
        stats.bootstrap(stats.difference_of_interquartile_means, treatment, baseline, rng=rng),
    )


def _published(references: References | None, game: str, source: str, otherwise: float) -> float:
    if references is None:
        return otherwise
    return references.scores.get(game, {}).get(source, otherwise)


def human_normalized(
    comparison: Comparison, arm: Arm, metric: str, references: References, rng: np.random.Generator
) -> tuple[tuple[str, ...], Estimate] | None:
    """Interquartile mean on the scale random 0, human 1, and the games in it; None if none has both published."""
    published = references.scores
    games = [game for game in comparison.games if {"random", "human"} <= published.get(game, {}).keys()]
    groups = {game: run_scores(comparison, arm, game, metric) for game in games}
    groups = {game: scores for game, scores in groups.items() if scores.size}
    if not groups:
        return None
    low, high = ([published[game][source] for game in groups] for source in ("random", "human"))
    scaled = stats.normalize(list(groups.values()), low, high)
    return tuple(groups), stats.bootstrap(stats.interquartile_mean, scaled, rng=rng)


def at_own_rates(
    comparison: Comparison, choice: Choice, references: References | None, rng: np.random.Generator
) -> list[Contrast]:
    """Every method against the baseline, each at its chosen rate."""
    return _contrasts(
        comparison,
        [(choice.arm(method), choice.arm(BASELINE)) for method in comparison.methods if method != BASELINE],
        references,
        rng,
    )


def at_equal_rates(
    comparison: Comparison, references: References | None, rng: np.random.Generator
) -> list[Contrast]:
    """Every method against the baseline at each rate that both have."""
    shared = [arm for arm in comparison.arms if arm.method != BASELINE]
    pairs = [(arm, Arm(BASELINE, arm.rate)) for arm in shared]
    return _contrasts(comparison, pairs, references, rng)


def _contrasts(
    comparison: Comparison,
    pairs: Sequence[tuple[Arm | None, Arm | None]],
    references: References | None,
    rng: np.random.Generator,
) -> list[Contrast]:
    found = [contrast(comparison, one, other, references, rng) for one, other in pairs if one and other]
    return [result for result in found if result is not None]


def curve(comparison: Comparison, arm: Arm, game: str, rng: np.random.Generator) -> Band:
    """Mean test score by epoch [epochs]."""
    return stats.mean_curve(comparison.scores(arm, game), rng)
