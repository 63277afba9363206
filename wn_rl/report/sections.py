"""The report's text: what was run, and what it shows at each method's own rate and at equal rates.

Wording follows the data: an interval that holds zero shows no difference, and no interval shows nothing.
"""

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from wn_rl.report.blocks import Block, Bullets, Caution, Code, Figures, Section, Table, Text
from wn_rl.report.comparison import BASELINE, Comparison, differing_settings
from wn_rl.report.figures import Figure
from wn_rl.report.grids import Grid
from wn_rl.report.method import ABOUT_NORMS, ABOUT_RATES, ABOUT_SPEED
from wn_rl.report.published import protocol_notes
from wn_rl.report.records import LeftOut, Run
from wn_rl.report.results import METRICS, Contrast, Findings
from wn_rl.report.tables import (
    difference_table,
    equal_rates_table,
    grid_table,
    growth_table,
    human_table,
    over_games_at_equal_rates_table,
    over_games_table,
    speed_table,
    table_3,
)
from wn_rl.report.words import NO_DIFFERENCE, TOO_FEW, counted, game_title, listed
from wn_rl.stats import CONFIDENCE

FigureGroups = Mapping[str, Sequence[Figure]]
"""Figures of a comparison by what they show: own rates, equal rates, robustness, norms."""


def summary_section(every: Sequence[Findings]) -> Section:
    """What all comparisons found, in a line for each pair of arms."""
    blocks: list[Block] = []
    for findings in every:
        name = findings.comparison.name
        if BASELINE not in findings.comparison.methods:
            blocks.append(Caution(f"{name}: no run of {BASELINE.label}, so nothing is compared with it."))
        for question, contrasts in (
            ("each method at its own rate", findings.own_rates),
            ("at equal rates", findings.equal_rates),
        ):
            if contrasts:
                blocks.append(Text(f"{name}, {question}, by the maximum test score:"))
                blocks.append(Bullets(tuple(map(summary_line, contrasts))))
    number = sum(map(_num_intervals, every))
    if number > 1:
        blocks.append(
            Text(
                f"These lines read {number} intervals of {CONFIDENCE:.0%} one by one: where nothing differs, "
                f"about one in {round(1 / (1 - CONFIDENCE))} would still leave out zero, and more with few seeds."
            )
        )
    return Section("In short", tuple(blocks))


def _num_intervals(findings: Findings) -> int:
    contrasts = {(c.treatment, c.baseline): c for c in (*findings.own_rates, *findings.equal_rates)}
    games = [game for contrast in contrasts.values() for game in contrast.of("maximum")]
    return sum(game.difference.low is not None for game in games)


def summary_line(contrast: Contrast) -> str:
    """The maximum test score of two arms in a sentence, by what the intervals say."""
    name = contrast.treatment.method.label
    games: dict[int | None, list[str]] = {}
    for game in contrast.of("maximum"):
        games.setdefault(game.difference.side_of(0), []).append(game_title(game.game))
    says = {1: f"{name} higher", -1: f"{name} lower", 0: NO_DIFFERENCE, None: TOO_FEW}
    found = [f"{says[side]} in {listed(games[side])}" for side in (1, -1, 0, None) if side in games]
    return f"{contrast.treatment.label} against {contrast.baseline.label}: {'; '.join(found)}."


def comparison_sections(
    findings: Findings, figures: FigureGroups, clips: Sequence[Block], every: Sequence[Comparison]
) -> list[Section]:
    """All sections of one comparison."""
    comparison = findings.comparison
    sections = [
        Section(comparison.name, tuple(_what_was_run(comparison, every))),
        Section("Each method at its own rate", tuple(_own_rates(findings, figures)), level=3),
        Section("Equal rates", tuple(_equal_rates(findings, figures)), level=3),
        Section("Learning rates", tuple(_learning_rates(findings, figures)), level=3),
    ]
    norms = growth_table(comparison)
    if norms:
        sections.append(Section("Norms", (ABOUT_NORMS, norms, *_pictures(figures["norms"])), level=3))
    sections.append(Section("Speed", (ABOUT_SPEED, speed_table(comparison)), level=3))
    if clips:
        sections.append(Section("Games", tuple(clips), level=3))
    sections.append(Section("Settings and commands", tuple(_settings(comparison)), level=3))
    return sections


def _pictures(figures: Sequence[Figure]) -> list[Block]:
    return [Figures(tuple(figures))] if figures else []


def _what_was_run(comparison: Comparison, every: Sequence[Comparison]) -> list[Block]:
    methods = listed([method.label for method in comparison.methods])
    games = listed([game_title(game) for game in comparison.games])
    text = (
        f"{counted(len(comparison.runs), 'run')}: {methods} on {games}, {_seeds(comparison)} to an arm and game. "
        f"Scores are those of {counted(comparison.num_epochs, 'test')} up to step {comparison.horizon:,}, one "
        f"every {comparison.test_period:,} steps; an arm is a method at one learning rate."
    )
    blocks: list[Block] = [Text(text)]
    twins = [other for other in every if other.suite == comparison.suite]
    if len(twins) > 1:
        names = listed(differing_settings(twins))
        blocks.append(Caution(f"Other {comparison.suite} runs are compared apart, for they differ in {names}."))
    if comparison.left_out:
        number = counted(len(comparison.left_out), "run")
        failed = sum(entry.run is not None and entry.run.status == "failed" for entry in comparison.left_out)
        but = f", {failed} of them failed: what is left of an arm may be its luckier part" if failed else ""
        blocks.append(Caution(f"{number} of this kind left out{but}. They are listed at the end."))
    missing = sum(int(np.isnan(run.scores(comparison.num_epochs)).sum()) for run in comparison.runs)
    if missing:
        blocks.append(
            Caution(
                f"{counted(missing, 'test')} without a score (no game ended in them, or they were not logged)."
            )
        )
    return blocks


def _seeds(comparison: Comparison) -> str:
    numbers = {
        len(comparison.runs_of(arm, game))
        for arm in comparison.arms
        for game in comparison.games
        if comparison.has(arm, game)
    }
    low, high = min(numbers), max(numbers)
    return counted(low, "seed") if low == high else f"{low} to {high} seeds"


def _own_rates(findings: Findings, figures: FigureGroups) -> list[Block]:
    blocks: list[Block] = [*_how_chosen(findings), table_3(findings)]
    references = findings.references
    if references and any(game in references.scores for game in findings.comparison.games):
        blocks.append(Caution("The published columns were not measured as ours were:"))
        blocks.append(Bullets(tuple(protocol_notes(findings.comparison))))
    for contrast in findings.own_rates:
        blocks.append(difference_table(contrast, list(METRICS)))
        if contrast.over_games:
            blocks.append(over_games_table(contrast))
    if findings.human:
        blocks.append(human_table(findings))
    return blocks + _pictures(figures["own rates"])


def _how_chosen(findings: Findings) -> list[Block]:
    """How each method came to its rate, and what that does to its scores."""
    choice, comparison = findings.choice, findings.comparison
    rates = listed([f"{method.label} {rate:g}" for method, rate in choice.rates.items()])
    rule = "the highest mean of maximum test scores, one rate for all games"
    if choice.basis == "single":
        return [Text(f"Each method was run at one rate only ({rates}): nothing was chosen here.")]
    if choice.basis == "same runs":
        told = {method: len(comparison.rates(method)) for method in comparison.methods}
        tried = listed([f"{counted(number, 'rate')} of {method.label}" for method, number in told.items()])
        return [
            Text(f"Chosen rates: {rates}, by {rule}."),
            Caution(
                f"The rates were chosen on these same runs, from {tried}: scores at a chosen rate are too high, "
                "the more so the more rates were tried. Fresh seeds would tell (--rates-from)."
            ),
        ]
    return _chosen_on_others(findings, rule)


def _chosen_on_others(findings: Findings, rule: str) -> list[Block]:
    choice, comparison, other = findings.choice, findings.comparison, findings.choice.chosen_on
    chosen = listed(
        [f"{method.label} {rate:g}" for method, rate in choice.rates.items() if method in other.methods]
    )
    blocks: list[Block] = [
        Text(
            f"Chosen rates: {chosen}, by {rule}, on {counted(len(other.runs), 'other run')} of "
            f"{other.horizon:,} steps; the scores here are of the runs below alone."
        )
    ]
    fixed = [method.label for method in choice.rates if method not in other.methods]
    if fixed:
        blocks.append(Text(f"Run at one rate only, so that nothing was chosen: {listed(fixed)}."))
    absent = [method.label for method in comparison.methods if choice.arm(method) not in comparison.arms]
    if absent:
        blocks.append(Caution(f"Not at a chosen rate here, and so not in this section: {listed(absent)}."))
    shared = len(_identities(comparison) & _identities(other))
    if shared:
        blocks.append(
            Caution(f"{counted(shared, 'run')} here share game, arm and seed with one that rates were chosen on.")
        )
    return blocks


def _identities(comparison: Comparison) -> set[object]:
    return {(run.game, run.arm, run.seed) for run in comparison.runs}


def _equal_rates(findings: Findings, figures: FigureGroups) -> list[Block]:
    if not findings.equal_rates:
        return [Text(f"No method was run at a rate of {BASELINE.label}'s.")]
    methods = dict.fromkeys(contrast.treatment.method for contrast in findings.equal_rates)
    tables: list[Block] = []
    for method in methods:
        mine = [contrast for contrast in findings.equal_rates if contrast.treatment.method == method]
        tables.append(equal_rates_table(mine, "maximum"))
        if any(contrast.over_games for contrast in mine):
            tables.append(over_games_at_equal_rates_table(mine, "maximum"))
    note = Text("The last test and the mean of the curve at equal rates are in tables/differences.csv.")
    return [*tables, note, *_pictures(figures["equal rates"])]


def _learning_rates(findings: Findings, figures: FigureGroups) -> list[Block]:
    return [ABOUT_RATES, grid_table(findings), *_pictures(figures["robustness"])]


def _settings(comparison: Comparison) -> list[Block]:
    shared = {"suite": comparison.suite, **comparison.settings}
    versions = Counter(map(_versions, comparison.runs))
    made_by = [f"{counted(number, 'run')}: {text}" for text, number in versions.items()]
    commands = [_command(run) for run in sorted(comparison.runs, key=lambda run: str(run.folder))]
    return [
        Bullets(tuple(made_by)),
        Code("Settings that all these runs share", json.dumps(shared, indent=1)),
        Code(f"Commands of the {counted(len(commands), 'run')}", "\n".join(commands)),
        Text("The whole config.json of every run is in configs.json."),
    ]


def _versions(run: Run) -> str:
    versions = run.record.get("versions")
    if not isinstance(versions, dict):
        return "versions not recorded"
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def _command(run: Run) -> str:
    command = run.record.get("command")
    if not isinstance(command, list):
        return f"# {run.folder}: no command recorded"
    return f"{shlex.join(map(str, command))}  # {run.folder}"


def left_out_section(left_out: Sequence[LeftOut]) -> Section:
    """Every folder that is not in the numbers, and why."""
    if not left_out:
        return Section("Left out", (Text("Every run that was found is in the numbers."),))
    rows = tuple((str(entry.folder), entry.reason) for entry in left_out)
    blocks: list[Block] = [Table(f"{counted(len(rows), 'folder')} not in the numbers", ("folder", "reason"), rows)]
    if any(entry.run is not None and entry.run.status != "finished" for entry in left_out):
        blocks.append(Text("Unfinished runs can be compared up to a step that they all reached: --until STEP."))
    return Section("Left out", tuple(blocks))


def grids_section(grids: Sequence[Grid]) -> Section:
    """The commands that asked for whole grids of runs, and how much of each there is."""
    blocks: list[Block] = []
    for grid in grids:
        begun = len(grid.runs) - len(grid.never_begun())
        blocks.append(Code(f"{begun} of {counted(len(grid.runs), 'run')} begun", grid.command))
    return Section("Grids of runs", tuple(blocks))


def sources_section(every: Sequence[Findings]) -> Section | None:
    """What the published columns are; None if there are none."""
    sources = {key: text for findings in every if findings.references for key, text in _sources(findings).items()}
    return Section("Published scores", (Bullets(tuple(sources.values())),)) if sources else None


def _sources(findings: Findings) -> Mapping[str, str]:
    references = findings.references
    games = findings.comparison.games
    return references.sources if references and any(game in references.scores for game in games) else {}
