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
from wn_rl.report.read import Plans
from wn_rl.report.render import Chapter, Fold, Table, say
from wn_rl.report.words import MISSING, game_title, reading, score, with_interval


def make_chapter(
    findings: Findings,
    pictures: Mapping[str, Sequence[Picture]],
    episodes: Fold,
    comparisons: Sequence[Comparison],
    plans: Plans,
) -> Chapter:
    """One comparison, of all those in the report. Folds without texts and tables are left out."""
    comparison = findings.comparison
    seeds = sorted({len(comparison.runs_of(arm, game)) for arm in comparison.arms for game in comparison.games})
    others = [score_table(findings, metric) for metric in ("final", "area")]
    rates = _rates_texts(findings)
    norms = [*pictures["norm-v"], *pictures["norm-g"]]
    made_by = Counter(run.versions for run in comparison.runs)
    shared = {"suite": comparison.suite, **comparison.settings}
    folds = [
        Fold("Other scores: the last evaluation, and the mean of the curve", tables=others),
        Fold("Learning rates", rates, [rates_table(findings)] if rates else [], pictures["rates-overview"]),
        Fold("Published scores: not measured as ours", _published_texts(findings)),
        Fold("Norms of v and g", say("norms") if norms else [], pictures=norms),
        episodes,
        Fold("Settings and versions", say("settings", made_by=made_by), code=json.dumps(shared, indent=1)),
    ]
    intro = say("intro", f=findings, fewest=seeds[0], most=seeds[-1])
    notes = _notes(findings, comparisons, plans)
    table = score_table(findings, "maximum")
    return Chapter(
        comparison.name, intro, pictures["overview"], table, notes, [f for f in folds if f.texts or f.tables]
    )


def score_table(findings: Findings, metric: str) -> Table:
    """The chosen arms in each game and over games: scores, differences from the baseline, and what they show."""
    own = findings.own
    columns = {f"difference from {baseline.label}": own for baseline in own.values()}
    columns[f"from {findings.comparison.baseline.label} at the same rate"] = {
        arm: baseline for arm, baseline in findings.equal.items() if arm in own and own[arm] != baseline
    }
    return _table_of_scores(findings, metric, findings.chosen, columns)


def rates_table(findings: Findings) -> Table:
    """Every arm by the maximum score, and its difference from the baseline at the same rate."""
    columns = {f"difference from {findings.comparison.baseline.label} at the same rate": findings.equal}
    return _table_of_scores(findings, "maximum", findings.comparison.arms, columns)


def _table_of_scores(findings: Findings, metric: str, arms: Sequence[Arm], columns: Mapping[str, Pairs]) -> Table:
    """columns: headings, and the baseline that each arm is compared with there; empty ones are left out."""
    columns = {heading: pairs for heading, pairs in columns.items() if pairs}
    rows: list[list[str]] = []
    games = findings.comparison.games
    for game in [*games, None]:
        title = game_title(game) if game else f"{len(games)} games"
        for arm in arms:
            cells = _cells(findings, metric, arm, game, list(columns.values()))
            rows += [[title, arm.label, *cells]] if set(cells) != {MISSING} else []
        if game and metric == "maximum" and arms == findings.chosen:
            published = findings.published.get(game, {})
            rows += [
                [title, name, score(published[source])] for source, name in SHOWN.items() if source in published
            ]
    header = ["game", "arm", "score [95% interval]", "seeds", *columns]
    header[5:5] = ["P(improvement)"] if columns else []
    about = {"baseline": findings.comparison.baseline.label, "several": len(games) > 1}
    padded = [row + [MISSING] * (len(header) - len(row)) for row in rows]
    return Table(say("table_caption", metric=metric, **about)[0], header, padded)


def _cells(findings: Findings, metric: str, arm: Arm, game: str | None, columns: Sequence[Pairs]) -> list[str]:
    """Score, seeds, differences, and after the first the probability of improvement; game None: over games."""
    first = columns[0].get(arm) if columns else None
    mean = findings.find("mean", metric, arm, game) if game else findings.find("iqm", metric, arm, None, first)
    kind = "difference" if game else "iqm_difference"
    differences = [findings.find(kind, metric, arm, game, pairs.get(arm)) for pairs in columns]
    improvement = [findings.find("improvement", metric, arm, game, first)] if columns else []
    compared = [*differences[:1], *improvement, *differences[1:]]
    return [_shown(mean), str(mean.seeds) if mean else MISSING, *map(_shown, compared)]


def _shown(found: Finding | None) -> str:
    """E.g. "9.28 [8.14, 10.8]"; of a difference also what its interval says."""
    if found is None or (found.quantity == "improvement" and found.estimate.low is None):
        return MISSING
    if "difference" in found.quantity:
        return f"{with_interval(found.estimate, signed=True)}; {reading(found.estimate, found.fewest_seeds)}"
    return with_interval(found.estimate)


def _notes(findings: Findings, comparisons: Sequence[Comparison], plans: Plans) -> list[str]:
    """What a reader must know to trust the table."""
    comparison = findings.comparison
    here = {run.folder.resolve() for run in comparison.runs}
    planned = {each.folder.resolve(): each for asked in plans.values() for each in asked}
    outs = {planned[folder].out for folder in here & planned.keys()}
    asked = {at for at, each in planned.items() if each.out in outs and each.suite == comparison.suite}
    pairs = {*findings.own.items(), *(pair for pair in findings.equal.items() if pair[0] in findings.own)}
    shown = [each for each in findings.numbers if each.metric == "maximum" and (each.arm, each.baseline) in pairs]
    over_games = {found.quantity for found in shown if found.game is None}
    intervals = [found for found in shown if "difference" in found.quantity and found.estimate.low is not None]
    return say(
        "notes",
        f=findings,
        published=any(game in findings.published for game in comparison.games),
        apart=differing_settings([other for other in comparisons if other.suite == comparison.suite]),
        asked=len(asked),
        found=len(asked & here),
        without_score=sum(int(np.isnan(run.scores(comparison.num_epochs)).sum()) for run in comparison.runs),
        versions=len({run.versions for run in comparison.runs}),
        no_scale=over_games == {"improvement"},
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
