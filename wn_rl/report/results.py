"""The numbers of a comparison: scores of arms, differences between them, and aggregates over games."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from wn_rl import stats
from wn_rl.report.comparison import Comparison
from wn_rl.report.other_curves import OtherCurve
from wn_rl.report.rates import Choice
from wn_rl.report.records import Arm, Method
from wn_rl.stats import Band, Estimate, FloatArray

METRICS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "maximum": lambda scores: np.nanmax(scores, axis=1),
    "final": lambda scores: scores[:, -1],
    "area": stats.area_under_curve,
}
"""Numbers of a run's tests: [seeds, epochs] to [seeds]. maximum is that of the paper's Table 3; final is the last
test; area is the mean height of the learning curve."""


@dataclass(frozen=True)
class References:
    """What others have published of a suite's games."""

    scores: Mapping[str, Mapping[str, float]]
    """Game, then source, to raw score; the sources "random" and "human" make scales."""
    sources: Mapping[str, str]
    """What each source is."""
    beside: Mapping[str, str]
    """Sources that stand beside ours in Table 3, and their headings."""
    curves: Mapping[str, Sequence[OtherCurve]] = field(default_factory=dict)
    """By game."""


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

    @property
    def seeds(self) -> int:
        """Runs of the arm that has fewer."""
        return min(self.treatment.size, self.baseline.size)


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

    @property
    def arms(self) -> tuple[Arm, Arm]:
        return self.treatment, self.baseline

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


@dataclass(frozen=True)
class HumanNormalized:
    """Interquartile mean over games and seeds of an arm on the scale random policy 0, human 1."""

    arm: Arm
    metric: str
    games: tuple[str, ...]
    iqm: Estimate


def human_normalized(
    comparison: Comparison, arms: Sequence[Arm], references: References, rng: np.random.Generator
) -> list[HumanNormalized]:
    """Each arm by each metric over its games whose random and human scores are published."""
    published = references.scores
    found = []
    for arm, metric in product(arms, METRICS):
        games = [game for game in comparison.games if {"random", "human"} <= published.get(game, {}).keys()]
        groups = {game: run_scores(comparison, arm, game, metric) for game in games}
        groups = {game: scores for game, scores in groups.items() if scores.size}
        if groups:
            low, high = ([published[game][source] for game in groups] for source in ("random", "human"))
            scaled = stats.normalize(list(groups.values()), low, high)
            iqm = stats.bootstrap(stats.interquartile_mean, scaled, rng=rng)
            found.append(HumanNormalized(arm, metric, tuple(groups), iqm))
    return found


@dataclass(frozen=True)
class RateSpread:
    """How far a method's means lie apart over the learning rates that it and the baseline both have in a game."""

    method: Method
    game: str
    metric: str
    rates: tuple[float, ...]
    treatment: Estimate
    baseline: Estimate
    difference: Estimate
    seeds: tuple[int, ...]
    """Of each arm that it is made of."""


def rate_spreads(comparison: Comparison, rng: np.random.Generator) -> list[RateSpread]:
    """Every method against the baseline in each game in which both have several rates, by each metric."""
    methods = [method for method in comparison.methods if method != comparison.baseline]
    found = []
    for method, metric, game in product(methods, METRICS, comparison.games):
        pairs = {
            rate: [run_scores(comparison, Arm(each, rate), game, metric) for each in (method, comparison.baseline)]
            for rate in comparison.rates(method)
        }
        pairs = {rate: pair for rate, pair in pairs.items() if all(scores.size for scores in pair)}
        if len(pairs) < 2:
            continue
        treatment, baseline = ([pair[side] for pair in pairs.values()] for side in (0, 1))
        found.append(
            RateSpread(
                method,
                game,
                metric,
                tuple(pairs),
                stats.bootstrap(stats.spread_of_means, treatment, rng=rng),
                stats.bootstrap(stats.spread_of_means, baseline, rng=rng),
                stats.bootstrap(stats.difference_of_spreads, treatment, baseline, rng=rng),
                tuple(scores.size for scores in (*treatment, *baseline)),
            )
        )
    return found


Pair = tuple[Arm, Arm]
"""Treatment and baseline."""


def pairs_at_own_rates(comparison: Comparison, choice: Choice) -> list[Pair]:
    """Every method and the baseline, each at its chosen rate."""
    baseline = choice.arm(comparison.baseline)
    treatments = [choice.arm(method) for method in comparison.methods if method != comparison.baseline]
    return [(treatment, baseline) for treatment in treatments if treatment and baseline]


def pairs_at_equal_rates(comparison: Comparison) -> list[Pair]:
    """Every method and the baseline at each rate that both were run at."""
    baseline = comparison.baseline
    rates = comparison.rates(baseline)
    treatments = [arm for arm in comparison.arms if arm.method != baseline and arm.rate in rates]
    return [(treatment, Arm(baseline, treatment.rate)) for treatment in treatments]


@dataclass(frozen=True)
class ArmCurve:
    """The learning curve of one arm in one game."""

    arm: Arm
    game: str
    scores: FloatArray
    """Mean raw return of each test [seeds, epochs], NaN where one is missing."""
    band: Band
    """Over seeds [epochs]."""


def arm_curves(comparison: Comparison, rng: np.random.Generator) -> list[ArmCurve]:
    """Every arm in every game that it has runs of."""
    found = []
    for game, arm in product(comparison.games, comparison.arms):
        if comparison.has(arm, game):
            scores = comparison.scores(arm, game)
            found.append(ArmCurve(arm, game, scores, stats.mean_curve(scores, rng)))
    return found


@dataclass(frozen=True)
class Findings:
    """All numbers of one comparison."""

    comparison: Comparison
    choice: Choice
    references: References | None
    scores: Sequence[ArmScore]
    curves: Sequence[ArmCurve]
    own_rates: Sequence[Contrast]
    """Each method at its chosen rate against the baseline at its own."""
    equal_rates: Sequence[Contrast]
    """Each method against the baseline at every rate that both were run at."""
    human: Sequence[HumanNormalized]
    """The chosen arms, where human scores are published."""
    spreads: Sequence[RateSpread]
    """Each method against the baseline, where both were run at several rates."""

    def others(self, game: str) -> list[OtherCurve]:
        """Curves that were published, up to the comparison's last step."""
        curves = self.references.curves.get(game, ()) if self.references else ()
        return [cut for curve in curves if (cut := curve.until(self.comparison.horizon))]

    @property
    def chosen(self) -> list[Arm]:
        """The arms at their chosen rates that have runs here."""
        return chosen_arms(self.comparison, self.choice)

    def score(self, arm: Arm, game: str, metric: str) -> ArmScore | None:
        """None where the arm has no such score."""
        wanted = (arm, game, metric)
        return next((score for score in self.scores if (score.arm, score.game, score.metric) == wanted), None)


def chosen_arms(comparison: Comparison, choice: Choice) -> list[Arm]:
    """The methods at their chosen rates, those without a run of it left out."""
    arms = [choice.arm(method) for method in comparison.methods]
    return [arm for arm in arms if arm in comparison.arms]


def examine(
    comparison: Comparison, choice: Choice, references: References | None, rng: np.random.Generator
) -> Findings:
    """Every number of a comparison."""
    own, equal = pairs_at_own_rates(comparison, choice), pairs_at_equal_rates(comparison)
    contrasts = {  # a pair that answers both questions has one answer
        pair: contrast(comparison, *pair, references, rng) for pair in dict.fromkeys((*own, *equal))
    }
    return Findings(
        comparison,
        choice,
        references,
        arm_scores(comparison, rng),
        arm_curves(comparison, rng),
        [found for pair in own if (found := contrasts[pair])],
        [found for pair in equal if (found := contrasts[pair])],
        human_normalized(comparison, chosen_arms(comparison, choice), references, rng) if references else [],
        rate_spreads(comparison, rng),
    )
