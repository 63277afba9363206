"""What the page and the Markdown show of each comparison: first the curves and one table, then folds."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from wn_rl.compare.arms import Arm
from wn_rl.config import Config, flat
from wn_rl.report.comparison import Comparison, differing_settings, scaled_means
from wn_rl.report.figures import Picture
from wn_rl.report.findings import Finding, Findings, Pairs
from wn_rl.report.published_scores import SHOWN, SOURCES
from wn_rl.report.render import Chapter, Fold, Table, say
from wn_rl.report.words import MISSING, game_title, reading, score, with_interval


def make_chapter(
    findings: Findings,
    pictures: Mapping[str, Sequence[Picture]],
    episodes: Fold,
    comparisons: Sequence[Comparison],
    left_out: int,
) -> Chapter:
    """One comparison of those in the report. Folds without texts and tables are left out.

    left_out: the number of folders that are in none of the comparisons.
    """
    comparison = findings.comparison
    seeds = sorted({len(comparison.runs_of(arm, game)) for arm in comparison.arms for game in comparison.games})
    made_by = Counter(run.versions for run in comparison.runs)
    shared = {"suite": comparison.suite, **comparison.settings}
    folds = [
        Fold("The last evaluation", tables=[score_table(findings, "final")]),
        Fold("Learning rates", _rates_texts(findings), pictures=pictures["rates-overview"]),
        Fold("Published scores: not measured as ours", _published_texts(findings)),
        episodes,
        Fold("Settings and versions", say("settings", made_by=made_by), code=json.dumps(shared, indent=1)),
    ]
    return Chapter(
        comparison.name,
        say("intro", f=findings, fewest=seeds[0], most=seeds[-1]),
        pictures["overview"],
        score_table(findings, "maximum"),
        _notes(findings, comparisons, left_out),
        [fold for fold in folds if fold.texts or fold.tables],
    )


def score_table(findings: Findings, metric: str) -> Table:
    """The chosen arms in each game and over games: scores, and differences from the baseline.

    These are from the baseline at its own rate and, where that is another one, at the rate of the arm.
    """
    own, comparison = findings.own, findings.comparison
    columns: dict[str, Pairs] = {f"against {baseline.label}": own for baseline in own.values()}
    equal = {arm: base for arm, base in findings.equal.items() if arm in own and own[arm] != base}
    columns |= {f"against {comparison.baseline.label} at the same rate": equal} if equal else {}
    rows: list[list[str]] = []
    for game in comparison.games:
        rows += [
            _row(findings, metric, arm, game, columns) for arm in findings.chosen if comparison.runs_of(arm, game)
        ]
        published = findings.published.get(game, {}) if metric == "maximum" else {}
        blank = [MISSING] * (1 + len(columns))
        rows += [
            [game_title(game), name, score(published[source]), *blank]
            for source, name in SHOWN.items()
            if source in published
        ]
    over_games = [_row(findings, metric, arm, None, columns) for arm in findings.chosen]
    rows += [row for row in over_games if set(row[2:]) != {MISSING}]
    baseline = comparison.baseline.label if columns else None
    caption = say("table_caption", metric=metric, baseline=baseline, several=len(comparison.games) > 1)
    return Table(caption[0], ["game", "arm", "score [95% interval]", "seeds", *columns], rows)


def _row(findings: Findings, metric: str, arm: Arm, game: str | None, columns: Mapping[str, Pairs]) -> list[str]:
    """columns: the baseline of each arm under each heading. game None: over games, where scores have no mean."""
    mean = findings.find("mean", metric, arm, game) if game else None
    quantity = "difference" if game else "improvement"
    compared = [findings.find(quantity, metric, arm, game, pairs.get(arm)) for pairs in columns.values()]
    title = game_title(game) if game else f"{len(findings.comparison.games)} games"
    return [title, arm.label, _shown(mean), str(mean.seeds) if mean else MISSING, *map(_shown, compared)]


def _shown(found: Finding | None) -> str:
    """E.g. "9.28 [8.14, 10.8]"; of a difference also what its interval says."""
    if found is None:
        return MISSING
    text = with_interval(found.estimate, signed=found.quantity == "difference")
    if found.quantity == "difference":
        return f"{text}; {reading(found.estimate, found.fewest_seeds)}"
    return f"P = {text}" if found.quantity == "improvement" else text


def _notes(findings: Findings, comparisons: Sequence[Comparison], left_out: int) -> list[str]:
    """What a reader must know to trust the table."""
    comparison = findings.comparison
    pairs = {*findings.own.items(), *(pair for pair in findings.equal.items() if pair[0] in findings.own)}
    shown = [each for each in findings.numbers if each.metric == "maximum" and (each.arm, each.baseline) in pairs]
    intervals = [found for found in shown if found.estimate.low is not None]
    return say(
        "notes",
        f=findings,
        left_out=left_out,
        published=any(game in findings.published for game in comparison.games),
        apart=differing_settings([other for other in comparisons if other.suite == comparison.suite]),
        without_score=sum(int(np.isnan(run.scores(comparison.num_epochs)).sum()) for run in comparison.runs),
        versions=len({run.versions for run in comparison.runs}),
        intervals=len(intervals),
        fewest=min((found.fewest_seeds for found in intervals), default=0),
    )


def _rates_texts(findings: Findings) -> list[str]:
    """How each method came to its learning rate; empty if each method has one rate."""
    comparison, other = findings.comparison, findings.choice.chosen_on
    if other is None:
        return []
    identities = [{(run.game, run.arm, run.seed) for run in each.runs} for each in (comparison, other)]
    return say(
        "rates",
        f=findings,
        means=scaled_means(other),
        unlike=[name for name in differing_settings([comparison, other]) if name != "steps"],
        shared=len(identities[0] & identities[1]) if other is not comparison else 0,
    )


def _published_texts(findings: Findings) -> list[str]:
    """How published scores differ from ours; empty if no scores are published."""
    comparison = findings.comparison
    if not any(game in findings.published for game in comparison.games):
        return []
    paper = flat(Config(comparison.games[0]))
    unlike = {name: value for name, value in comparison.settings.items() if value != paper.get(name, value)}
    return say("published", f=findings, sources=SOURCES, shown=SHOWN, unlike=unlike, paper=paper)
