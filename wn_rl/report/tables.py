"""The tables of a report, for readers: rounded, with intervals in brackets. `csv_files` has the numbers."""

import math
from collections.abc import Sequence
from itertools import product

import numpy as np

from wn_rl.report.blocks import Table
from wn_rl.report.comparison import Comparison
from wn_rl.report.rates import Choice, candidates
from wn_rl.report.records import Arm
from wn_rl.report.results import Contrast, Findings, GameDifference, OverGames, RateSpread, run_scores
from wn_rl.report.traces import norm_curves, speeds
from wn_rl.report.words import game_title, interval, reading, score, seeds_between, signed, with_interval

METRIC_TITLES = {"maximum": "maximum", "final": "last test", "area": "mean of the curve"}
MISSING = "\N{EN DASH}"


def table_3(findings: Findings) -> Table:
    """Mean over seeds of the maximum test score of each chosen arm, published scores beside it."""
    references = findings.references
    beside = references.beside if references and _published_games(findings) else {}
    rows = []
    for game in findings.comparison.games:
        cells = [_arm_cell(findings, arm, game, "maximum") for arm in findings.chosen]
        published = references.scores.get(game, {}) if references else {}
        cells += [score(published[source]) if source in published else MISSING for source in beside]
        rows.append((game_title(game), *cells))
    header = ("game", *(arm.label for arm in findings.chosen), *beside.values())
    caption = "Maximum test score: mean over seeds [95% interval] (seeds)"
    return Table(caption, header, tuple(rows))


def _published_games(findings: Findings) -> bool:
    references = findings.references
    return references is not None and any(game in references.scores for game in findings.comparison.games)


def _arm_cell(findings: Findings, arm: Arm, game: str, metric: str) -> str:
    found = findings.score(arm, game, metric)
    return f"{with_interval(found.mean)} ({found.scores.size})" if found else MISSING


def difference_table(contrast: Contrast, metrics: Sequence[str]) -> Table:
    """A treatment against a baseline, game by game."""
    rows = tuple(
        (game_title(game.game), METRIC_TITLES[metric], *_difference_cells(game, contrast.treatment))
        for metric in metrics
        for game in contrast.of(metric)
    )
    header = ("game", "score", *_names(contrast), "difference", "reading")
    return Table(f"{contrast.treatment.label} less {contrast.baseline.label}", header, rows)


def _names(contrast: Contrast) -> tuple[str, str]:
    return contrast.treatment.method.label, contrast.baseline.method.label


def _difference_cells(game: GameDifference, treatment: Arm) -> tuple[str, ...]:
    difference = game.difference
    return (
        f"{score(float(game.treatment.mean()))} ({game.treatment.size})",
        f"{score(float(game.baseline.mean()))} ({game.baseline.size})",
        signed(difference.point) + interval(difference),
        reading(difference, treatment.method.label, game.seeds),
    )


def equal_rates_table(contrasts: Sequence[Contrast], metric: str) -> Table:
    """One method against the baseline at each rate that both have, game by game."""
    treatment, baseline = _names(contrasts[0])
    rows = tuple(
        (game_title(game.game), f"{contrast.treatment.rate:g}", *_difference_cells(game, contrast.treatment))
        for contrast in contrasts
        for game in contrast.of(metric)
    )
    header = ("game", "rate", treatment, baseline, "difference", "reading")
    return Table(f"{treatment} less {baseline} at equal rates, {METRIC_TITLES[metric]}", header, rows)


def over_games_table(contrast: Contrast) -> Table:
    """A treatment against a baseline over games, by each metric."""
    rows = tuple(
        (METRIC_TITLES[aggregate.metric], *_over_games_cells(aggregate)) for aggregate in contrast.over_games
    )
    caption = f"Over games: {contrast.treatment.label} against {contrast.baseline.label}, {_units(contrast)}"
    return Table(caption, ("score", *_over_games_header(contrast)), rows)


def over_games_at_equal_rates_table(contrasts: Sequence[Contrast], metric: str) -> Table:
    """One method against the baseline over games, at each rate that both have in two games or more."""
    rows = tuple(
        (f"{contrast.treatment.rate:g}", *_over_games_cells(aggregate))
        for contrast in contrasts
        for aggregate in contrast.over_games
        if aggregate.metric == metric
    )
    treatment, baseline = _names(contrasts[0])
    units = _units(contrasts[0])
    caption = f"Over games: {treatment} against {baseline} at equal rates, {METRIC_TITLES[metric]}, {units}"
    return Table(caption, ("rate", *_over_games_header(contrasts[0])), rows)


def _units(contrast: Contrast) -> str:
    baseline = contrast.baseline.method.label
    return f"interquartile means in units of {baseline}'s mean in each game [95% interval]"


def _over_games_header(contrast: Contrast) -> tuple[str, ...]:
    return ("games", *_names(contrast), "difference", "P(improvement)")


def _over_games_cells(aggregate: OverGames) -> tuple[str, ...]:
    iqms = (aggregate.treatment_iqm, aggregate.baseline_iqm)
    difference = aggregate.iqm_difference
    return (
        str(len(aggregate.games)),
        *(with_interval(iqm) if iqm else MISSING for iqm in iqms),
        signed(difference.point) + interval(difference) if difference else MISSING,
        with_interval(aggregate.improvement),
    )


def human_table(findings: Findings) -> Table:
    """Human-normalized interquartile means of the chosen arms."""
    rows = tuple(
        (human.arm.label, METRIC_TITLES[human.metric], str(len(human.games)), with_interval(human.iqm))
        for human in findings.human
    )
    return Table(
        "Over games, random policy 0 and human 1 [95% interval]",
        ("arm", "score", "games", "interquartile mean"),
        rows,
    )


def grid_table(findings: Findings) -> Table:
    """Every arm in every game by the maximum test score; chosen rates are marked."""
    games = findings.comparison.games
    rows = []
    for candidate in candidates(findings.comparison):
        arm = candidate.arm
        name = f"{arm.label} (chosen)" if arm in findings.chosen else arm.label
        cells = (_arm_cell(findings, arm, game, "maximum") for game in games)
        scaled = MISSING if math.isnan(candidate.mean) else score(candidate.mean)
        rows.append((name, *cells, scaled, str(findings.comparison.num_left_out(arm))))
    header = ("arm", *map(game_title, games), "0 to 1", "left out")
    caption = (
        "Maximum test score: mean over seeds [95% interval] (seeds); 0 to 1: mean over games, 0 for a game's "
        "worst arm and 1 for its best; left out: of the runs that began"
    )
    return Table(caption, header, tuple(rows))


def candidates_table(choice: Choice) -> Table:
    """What the rates were chosen from, where that was on other runs."""
    comparison = choice.chosen_on
    rows = []
    for candidate in candidates(comparison):
        arm = candidate.arm
        name = f"{arm.label} (chosen)" if arm == choice.arm(arm.method) else arm.label
        groups = [run_scores(comparison, arm, game, "maximum") for game in comparison.games]
        cells = [f"{score(float(group.mean()))} ({group.size})" if group.size else MISSING for group in groups]
        rows.append((name, *cells, MISSING if math.isnan(candidate.mean) else score(candidate.mean)))
    caption = (
        f"The other runs, {comparison.horizon:,} steps. Maximum test score: mean over seeds (seeds); 0 to 1: mean "
        "over games, 0 for a game's worst arm and 1 for its best"
    )
    return Table(caption, ("arm", *map(game_title, comparison.games), "0 to 1"), tuple(rows))


def spread_tables(findings: Findings) -> list[Table]:
    """How much scores change from rate to rate: a table for each method that shares several with the baseline."""
    methods = dict.fromkeys(spread.method for spread in findings.spreads)
    baseline = findings.comparison.baseline.label
    return [
        _spread_table([spread for spread in findings.spreads if spread.method == each], baseline)
        for each in methods
    ]


def _spread_table(spreads: Sequence[RateSpread], baseline: str) -> Table:
    treatment = spreads[0].method.label
    rows = tuple(
        (
            game_title(spread.game),
            METRIC_TITLES[spread.metric],
            str(len(spread.rates)),
            score(spread.treatment.point),
            score(spread.baseline.point),
            signed(spread.difference.point) + interval(spread.difference),
            seeds_between(spread.seeds),
        )
        for spread in spreads
    )
    caption = (
        f"Spread over rates, {treatment} less {baseline}: the greatest less the least of the means at the rates "
        "that both have. Noise alone makes a spread, the larger the noisier an arm is and the fewer seeds it has, "
        "and resampling adds to it: these intervals are a rough guide, and no finding is read off them"
    )
    header = ("game", "score", "rates", treatment, baseline, "difference [95% interval]", "to an arm")
    return Table(caption, header, rows)


def growth_table(comparison: Comparison) -> Table | None:
    """How many times its first value after initialization |v| is at the end, by layer; None without norms."""
    growths = {
        (arm, game): {curve.layer: curve.growth for curve in norm_curves(comparison, arm, game, "v")}
        for arm, game in product(comparison.arms, comparison.games)
    }
    layers = list(dict.fromkeys(layer for growth in growths.values() for layer in growth))
    rows = tuple(
        (arm.label, game_title(game), *(score(growth[layer]) if layer in growth else MISSING for layer in layers))
        for (arm, game), growth in growths.items()
        if growth
    )
    caption = "|v| at the last step over |v| at the first row after initialization, mean over units and seeds"
    return Table(caption, ("arm", "game", *layers), rows) if rows else None


def speed_table(comparison: Comparison) -> Table:
    """Frames per second by method, game and machine."""
    rows = []
    for speed in speeds(comparison):
        low, middle, high = (f"{value:,.0f}" for value in np.quantile(speed.frames_per_second, (0, 0.5, 1)))
        runs = str(speed.frames_per_second.size)
        rows.append((speed.method, game_title(speed.game), speed.machine, runs, middle, f"{low} to {high}"))
    header = ("method", "game", "machine", "runs", "median", "range")
    return Table("Frames per second in training: the median of each run, then over runs", header, tuple(rows))
