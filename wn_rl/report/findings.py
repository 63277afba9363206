"""The numbers of a comparison as one long list: scores of arms, and how these differ in a game and over games."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from wn_rl.compare.arms import Arm
from wn_rl.report import stats
from wn_rl.report.comparison import Choice, Comparison
from wn_rl.report.published_scores import Scores
from wn_rl.report.stats import Estimate, FloatArray

METRICS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "maximum": lambda scores: np.nanmax(scores, axis=1),
    "final": lambda scores: scores[:, -1],
}
"""Numbers of a run's evaluations: [seeds, epochs] to [seeds]. maximum is that of the paper's Table 3; final is the
last evaluation."""

Pairs = Mapping[Arm, Arm]
"""Treatments, each with the baseline that it is compared with."""


@dataclass(frozen=True)
class Finding:
    """One number, a row of findings.csv. Its quantity says what the number is.

    mean: of the arm's scores in one game.
    difference: the arm's mean less the baseline's in one game; raw scores, unpaired.
    improvement: the probability that a run of the arm scores more than one of the baseline; mean over the games.
    """

    quantity: str
    metric: str
    arm: Arm
    baseline: Arm | None
    games: tuple[str, ...]
    estimate: Estimate
    seeds: int
    """Runs of the arm, in the game that has the fewest."""
    baseline_seeds: int | None = None

    @property
    def game(self) -> str | None:
        """None for a number over several games."""
        return self.games[0] if len(self.games) == 1 else None

    @property
    def fewest_seeds(self) -> int:
        """Of both arms."""
        return self.seeds if self.baseline_seeds is None else min(self.seeds, self.baseline_seeds)


@dataclass(frozen=True)
class Findings:
    """All numbers of one comparison."""

    comparison: Comparison
    choice: Choice
    published: Scores
    chosen: Sequence[Arm]
    """The arms at their chosen rates that have runs here."""
    own: Pairs
    """Each method at its chosen rate against the baseline at its own."""
    equal: Pairs
    """Each method against the baseline at every rate that both were run at."""
    numbers: Sequence[Finding]
    curves: Mapping[tuple[Arm, str], Sequence[Estimate]]
    """By arm and game: the mean of each evaluation over seeds."""

    @cached_property
    def _by_key(self) -> dict[tuple[object, ...], Finding]:
        return {(each.quantity, each.metric, each.arm, each.game, each.baseline): each for each in self.numbers}

    def find(
        self, quantity: str, metric: str, arm: Arm, game: str | None, baseline: Arm | None = None
    ) -> Finding | None:
        """The number of one game, or over games for None; None where there is no such number."""
        return self._by_key.get((quantity, metric, arm, game, baseline))


def examine(comparison: Comparison, choice: Choice, published: Scores, rng: np.random.Generator) -> Findings:
    """Every number of a comparison. published: scores of its games."""
    chosen = [choice.arms[method] for method in comparison.methods if choice.arms.get(method) in comparison.arms]
    own, equal = _pairs(comparison, choice)
    pairs = dict.fromkeys((*own.items(), *equal.items()))  # a pair that answers both questions has one answer
    numbers = [found for pair in pairs for found in _differences(comparison, *pair, rng)]
    numbers += _means(comparison, rng)
    curves = {
        (arm, game): stats.mean_curve(comparison.scores(arm, game), rng)
        for game, arm in product(comparison.games, comparison.arms)
        if comparison.runs_of(arm, game)
    }
    return Findings(comparison, choice, published, chosen, own, equal, numbers, curves)


def _pairs(comparison: Comparison, choice: Choice) -> tuple[Pairs, Pairs]:
    """The methods and the baseline at their own rates, and at equal ones."""
    at_rate = {arm.learning_rate: arm for arm in comparison.arms if arm.method == comparison.baseline}
    treatments = [arm for arm in comparison.arms if arm.method != comparison.baseline]
    own = choice.arms.get(comparison.baseline)
    chosen = [choice.arms[arm.method] for arm in treatments if own and arm.method in choice.arms]
    equal = {arm: at_rate[arm.learning_rate] for arm in treatments if arm.learning_rate in at_rate}
    return (dict.fromkeys(chosen, own) if own else {}), equal


def _run_scores(comparison: Comparison, arm: Arm, game: str, metric: str) -> FloatArray:
    """The metric of each run, float [seeds], without the runs that lack it (their last evaluation, say)."""
    values = METRICS[metric](comparison.scores(arm, game))
    return np.asarray(values[~np.isnan(values)])


def _means(comparison: Comparison, rng: np.random.Generator) -> Iterator[Finding]:
    for game, arm, metric in product(comparison.games, comparison.arms, METRICS):
        scores = _run_scores(comparison, arm, game, metric)
        if scores.size:
            mean = stats.bootstrap(stats.mean, [scores], rng=rng)
            yield Finding("mean", metric, arm, None, (game,), mean, scores.size)


def _differences(comparison: Comparison, arm: Arm, baseline: Arm, rng: np.random.Generator) -> Iterator[Finding]:
    """The arm against the baseline by each metric, in every game that both have and over these games."""
    for metric in METRICS:
        scores = {
            game: [_run_scores(comparison, each, game, metric) for each in (arm, baseline)]
            for game in comparison.games
        }
        games = tuple(game for game in scores if all(side.size for side in scores[game]))
        for together in [*((game,) for game in games), *([games] if len(games) > 1 else [])]:
            treated, untreated = ([scores[game][side] for game in together] for side in (0, 1))
            seeds, baseline_seeds = (min(map(len, group)) for group in (treated, untreated))
            over_games = len(together) > 1
            statistic = stats.probability_of_improvement if over_games else stats.difference
            estimate = stats.bootstrap(statistic, treated, untreated, rng=rng)
            quantity = "improvement" if over_games else "difference"
            yield Finding(quantity, metric, arm, baseline, together, estimate, seeds, baseline_seeds)
