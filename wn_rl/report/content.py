"""What the page and the Markdown show of each comparison: first the curves and one table, then folds."""

import json
import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from wn_rl.arms import Arm
from wn_rl.config import Config, flat
from wn_rl.errors import counted
from wn_rl.report.comparison import Comparison, differing_settings
from wn_rl.report.figures import Picture
from wn_rl.report.findings import Findings, Pairs
from wn_rl.report.grids import Grids
from wn_rl.report.rates import scaled_means
from wn_rl.report.read import Run
from wn_rl.report.render import Chapter, Clip, Fold, Table, say
from wn_rl.report.traces import speeds
from wn_rl.report.words import game_title, listed, reading, score, seeds_between, with_interval

MISSING = "\N{EN DASH}"


def make_chapter(
    findings: Findings,
    pictures: Mapping[str, Sequence[Picture]],
    clips: Sequence[Clip],
    failures: Sequence[str],
    every: Sequence[Comparison],
    grids: Grids,
) -> Chapter:
    """One comparison.

    failures: why some clips could not be recorded. every: all comparisons of the report.
    """
    comparison = findings.comparison
    seeds = [len(comparison.runs_of(arm, game)) for arm in comparison.arms for game in comparison.games]
    methods = listed([method.label for method in comparison.methods])
    other_scores = [score_table(findings, metric) for metric in ("final", "area")]
    published = _published_texts(findings)
    folds = [
        Fold("Other scores: the last evaluation, and the mean of the curve", (), other_scores),
        *_rates_folds(findings, [*pictures["rates"], *pictures["equal rates"]]),
        *([Fold("Published scores and curves: not measured as ours", published)] if published else []),
        *([Fold("Norms of v and g", say("norms"), pictures=pictures["norms"])] if pictures["norms"] else []),
        Fold("Speed", say("speed"), [speed_table(comparison)]),
        *([Fold("Recorded episodes", [*say("clips"), *failures], clips=clips)] if clips or failures else []),
        _settings_fold(comparison),
    ]
    intro = say("intro", f=findings, methods=methods, seeds=seeds_between(seeds))
    table = score_table(findings, "maximum")
    return Chapter(comparison.name, intro, pictures["curves"], table, _notes(findings, every, grids), folds)


def score_table(findings: Findings, metric: str) -> Table:
    """The chosen arms in each game and over games: scores, differences from the baseline, and what they show."""
    own = findings.own
    equal = {arm: baseline for arm, baseline in findings.equal.items() if arm in own and own[arm] != baseline}
    columns = {f"difference from {baseline.label}": own for baseline in own.values()}
    columns |= {f"from {findings.comparison.baseline.label} at the same rate": equal} if equal else {}
    return _table_of_scores(findings, metric, findings.chosen, columns)


def rates_table(findings: Findings) -> Table:
    """Every arm by the maximum score, and its difference from the baseline at the same rate."""
    heading = f"difference from {findings.comparison.baseline.label} at the same rate"
    columns = {heading: findings.equal} if findings.equal else {}
    return _table_of_scores(findings, "maximum", findings.comparison.arms, columns)


def _table_of_scores(findings: Findings, metric: str, arms: Sequence[Arm], columns: Mapping[str, Pairs]) -> Table:
    """columns: headings, and the baseline that each arm is compared with there."""
    rows: list[list[str]] = []
    games = findings.comparison.games
    for game in [*games, None]:
        title = game_title(game) if game else f"{len(games)} games"
        for arm in arms:
            cells = _cells(findings, metric, arm, game, list(columns.values()))
            rows += [[title, arm.label, *cells]] if set(cells) != {MISSING} else []
        for name, value in _published_beside(findings, metric, game).items() if arms == findings.chosen else ():
            rows.append([title, name, score(value), *[MISSING] * (1 + len(columns) + bool(columns))])
    human = [(arm, found) for arm in arms if (found := findings.find("human_iqm", metric, arm, None))]
    for arm, found in human:
        cells = [with_interval(found.estimate), str(found.seeds), *[MISSING] * (len(columns) + bool(columns))]
        rows.append([f"{len(found.games)} games, human 1", arm.label, *cells])
    header = ["game", "arm", "score [95% interval]", "seeds", *columns, *(["P(improvement)"] if columns else [])]
    about = {"baseline": findings.comparison.baseline.label, "several": len(games) > 1, "human": bool(human)}
    return Table(say("table_caption", metric=metric, **about)[0], header, rows)


def _cells(findings: Findings, metric: str, arm: Arm, game: str | None, columns: Sequence[Pairs]) -> list[str]:
    """Score, seeds, differences, and the probability of improvement; game None: over games."""
    baselines = [baseline for pairs in columns if (baseline := pairs.get(arm))]
    scores = (
        [findings.find("mean", metric, arm, game)]
        if game
        else [findings.find("iqm", metric, arm, None, baseline) for baseline in baselines]
    )
    shown = [found for found in scores if found][:1]
    cells = [with_interval(shown[0].estimate), str(shown[0].seeds)] if shown else [MISSING, MISSING]
    for pairs in columns:
        found = findings.find("difference" if game else "iqm_difference", metric, arm, game, pairs.get(arm))
        words = (
            f"{with_interval(found.estimate, signed=True)}; {reading(found.estimate, found.fewest_seeds)}"
            if found
            else MISSING
        )
        cells.append(words)
    if columns:
        better = findings.find("improvement", metric, arm, game, columns[0].get(arm))
        cells.append(with_interval(better.estimate) if better and better.estimate.low is not None else MISSING)
    return cells


def _published_beside(findings: Findings, metric: str, game: str | None) -> dict[str, float]:
    """Published maximum scores of a game by what they are called."""
    scores = findings.published.scores.get(game or "", {}) if metric == "maximum" else {}
    return {name: scores[source] for source, name in findings.published.shown.items() if source in scores}


def speed_table(comparison: Comparison) -> Table:
    """Frames per second by method, game and machine."""
    rows = []
    for (method, game, machine), values in speeds(comparison).items():
        low, median, high = (f"{value:,.0f}" for value in np.quantile(values, (0, 0.5, 1)))
        rows.append([method.label, game_title(game), machine, str(values.size), median, f"{low} to {high}"])
    caption = "Frames per second in training: the median of each run, then over runs"
    return Table(caption, ["method", "game", "machine", "runs", "median", "range"], rows)


def _notes(findings: Findings, every: Sequence[Comparison], grids: Grids) -> list[str]:
    """What a reader must know to trust the table."""
    comparison = findings.comparison
    here = {run.folder.resolve() for run in comparison.runs}
    cells = {cell.folder.resolve(): cell for asked in grids.values() for cell in asked}
    outs = {cells[folder].out for folder in here & cells.keys()}
    asked = {at for at, cell in cells.items() if cell.out in outs and cell.suite == comparison.suite}
    pairs = [
        *findings.own.items(),
        *((arm, other) for arm, other in findings.equal.items() if arm in findings.own),
    ]
    shown = [
        found for found in findings.numbers if found.metric == "maximum" and (found.arm, found.baseline) in pairs
    ]
    over_games = [found for found in shown if found.game is None]
    intervals = [found for found in shown if "difference" in found.quantity and found.estimate.low is not None]
    return say(
        "notes",
        f=findings,
        apart=differing_settings([other for other in every if other.suite == comparison.suite]),
        asked=len(asked),
        found=len(asked & here),
        without_score=sum(int(np.isnan(run.scores(comparison.num_epochs)).sum()) for run in comparison.runs),
        versions=len({json.dumps(run.versions, sort_keys=True) for run in comparison.runs}),
        no_scale=bool(over_games) and not any(found.quantity == "iqm" for found in over_games),
        intervals=len(intervals),
        fewest=min((found.fewest_seeds for found in intervals), default=0),
    )


def _rates_folds(findings: Findings, pictures: Sequence[Picture]) -> list[Fold]:
    """How each method came to its learning rate, and every arm; empty where each method has one rate."""
    if findings.choice.basis == "single":
        return []
    comparison, choice = findings.comparison, findings.choice
    other = choice.chosen_on
    identities = [{(run.game, run.arm, run.seed) for run in each.runs} for each in (comparison, other)]
    texts = say(
        "rates",
        f=findings,
        means=[
            f"{arm.label}: {MISSING if math.isnan(mean) else score(mean)}"
            for arm, mean in scaled_means(other).items()
        ],
        fixed=[arm.label for method, arm in choice.arms.items() if method not in other.methods],
        unlike=[name for name in differing_settings([comparison, other]) if name != "steps"],
        shared=len(identities[0] & identities[1]) if choice.basis == "other runs" else 0,
    )
    return [Fold("Learning rates", texts, [rates_table(findings)], pictures)]


def _published_texts(findings: Findings) -> list[str]:
    """What makes published scores and curves unlike ours; empty if there are none."""
    comparison = findings.comparison
    texts = []
    if any(game in findings.published.scores for game in comparison.games):
        paper = flat(Config(comparison.games[0]))
        unlike = [
            f"{name} {_plain(value)} (paper {_plain(paper[name])})"
            for name, value in comparison.settings.items()
            if name in paper and value != paper[name]
        ]
        texts += say("published", f=findings, unlike=unlike)
    reached = [
        f"{name} on {game_title(game)}: {score(points[-1][1])} at step {points[-1][0]:,}"
        for game in comparison.games
        for name, points in findings.published_curves(game)
    ]
    return texts + (say("other_curves", reached=reached) if reached else [])


def _plain(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _settings_fold(comparison: Comparison) -> Fold:
    made_by = Counter(
        ", ".join(f"{name} {version}" for name, version in run.versions.items()) for run in comparison.runs
    )
    texts = [
        f"{counted(runs, 'run')}: {versions or 'versions not recorded'}" for versions, runs in made_by.items()
    ]
    shared = json.dumps({"suite": comparison.suite, **comparison.settings}, indent=1)
    commands = [_command(run) for run in sorted(comparison.runs, key=lambda run: str(run.folder))]
    texts.append("The config.json of every run is in configs.json.")
    return Fold("Settings and commands", texts, code="\n".join([shared, "", *commands]))


def _command(run: Run) -> str:
    command = run.record.get("command")
    typed = shlex.join(map(str, command)) if isinstance(command, list) else "no command recorded"
    return f"{typed}  # {run.folder}"
