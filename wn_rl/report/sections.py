"""The report's text: what was run, and what it shows at each method's own rate and at equal rates.

Wording follows the data: an interval that holds zero shows no difference, and no interval shows nothing.
"""

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

from wn_rl.report.blocks import Block, Bullets, Caution, Code, Figures, Section, Table, Text
from wn_rl.report.chapter_head import versions_of, what_was_run
from wn_rl.report.chosen import how_chosen
from wn_rl.report.comparison import Comparison
from wn_rl.report.explanations import ABOUT_DASHES, ABOUT_NORMS, ABOUT_RATES, ABOUT_SPEED
from wn_rl.report.figures import Figure
from wn_rl.report.grids import GridFile
from wn_rl.report.published import protocol_notes
from wn_rl.report.records import Arm, LeftOut, Run
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
    spread_tables,
    table_3,
)
from wn_rl.report.words import counted, game_title, score

FigureGroups = Mapping[str, Sequence[Figure]]
"""Figures of a comparison by what they show: own rates, equal rates, robustness, norms."""


def comparison_sections(
    findings: Findings,
    figures: FigureGroups,
    clips: Sequence[Block],
    every: Sequence[Comparison],
    grids: Sequence[GridFile],
) -> list[Section]:
    """All sections of one comparison."""
    comparison = findings.comparison
    sections = [
        Section(comparison.name, tuple(what_was_run(comparison, every, grids))),
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


def _own_rates(findings: Findings, figures: FigureGroups) -> list[Block]:
    blocks: list[Block] = [*how_chosen(findings), table_3(findings)]
    references = findings.references
    if references and any(game in references.scores for game in findings.comparison.games):
        blocks.append(Caution("The published columns were not measured as ours were:"))
        blocks.append(Bullets(tuple(protocol_notes(findings.comparison))))
    blocks += _beside_others(findings)
    for contrast in findings.own_rates:
        blocks.append(difference_table(contrast, list(METRICS)))
        if contrast.over_games:
            blocks += [over_games_table(contrast), *_about_dashes([contrast])]
    if findings.human:
        blocks.append(human_table(findings))
    if findings.human or any(contrast.over_games for contrast in findings.own_rates):
        blocks += _unequal_seeds(findings.comparison, findings.chosen)
    return blocks + _pictures(figures["own rates"])


def _beside_others(findings: Findings) -> list[Block]:
    """What other people's curves had come to by our last step."""
    curves = [(game, other) for game in findings.comparison.games for other in findings.others(game)]
    if not curves:
        return []
    reached = [
        f"{other.name} on {game_title(game)} ({counted(other.num_seeds, 'seed')}): "
        f"{score(other.returns[-1])} at step {other.steps[-1]:,}"
        for game, other in curves
    ]
    return [
        Text(f"Curves of others, each the mean over its seeds of one test: {'; '.join(reached)}."),
        Caution("Their settings, schedules and tests are not known here, and may be unlike ours."),
    ]


def _about_dashes(contrasts: Sequence[Contrast]) -> list[Block]:
    """Why numbers over games are missing; empty if none is."""
    aggregates = [aggregate for contrast in contrasts for aggregate in contrast.over_games]
    return [ABOUT_DASHES] if any(aggregate.iqm_difference is None for aggregate in aggregates) else []


def _unequal_seeds(comparison: Comparison, arms: Sequence[Arm]) -> list[Block]:
    """Runs by game of each arm that has more of one game than of another, for the former weighs more."""
    seeds = {arm: {game: len(comparison.runs_of(arm, game)) for game in comparison.games} for arm in arms}
    unequal = [
        f"{arm.label}: " + ", ".join(f"{game_title(game)} {number}" for game, number in games.items() if number)
        for arm, games in seeds.items()
        if len(set(games.values()) - {0}) > 1
    ]
    if not unequal:
        return []
    told = "; ".join(unequal)
    return [Caution(f"The interquartile mean weighs games by their runs, and these are not equally many: {told}.")]


def _equal_rates(findings: Findings, figures: FigureGroups) -> list[Block]:
    if not findings.equal_rates:
        return [Text(f"No method was run at a rate of {findings.comparison.baseline.label}'s.")]
    methods = dict.fromkeys(contrast.treatment.method for contrast in findings.equal_rates)
    tables: list[Block] = []
    for method in methods:
        mine = [contrast for contrast in findings.equal_rates if contrast.treatment.method == method]
        tables.append(equal_rates_table(mine, "maximum"))
        over_games = [contrast for contrast in mine if contrast.over_games]
        if over_games:
            tables.append(over_games_at_equal_rates_table(mine, "maximum"))
            tables += _about_dashes(over_games)
            tables += _unequal_seeds(findings.comparison, [arm for c in over_games for arm in c.arms])
    note = Text("The last test and the mean of the curve at equal rates are in tables/differences.csv.")
    return [*tables, note, *_pictures(figures["equal rates"])]


def _learning_rates(findings: Findings, figures: FigureGroups) -> list[Block]:
    return [ABOUT_RATES, grid_table(findings), *spread_tables(findings), *_pictures(figures["robustness"])]


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
    return ", ".join(f"{name} {version}" for name, version in versions_of(run).items()) or "versions not recorded"


def _command(run: Run) -> str:
    command = run.record.get("command")
    if not isinstance(command, list):
        return f"# {run.folder}: no command recorded"
    return f"{shlex.join(map(str, command))}  # {run.folder}"


def left_out_section(left_out: Sequence[LeftOut]) -> Section:
    """What is not in the numbers, and why."""
    if not left_out:
        return Section("Left out", (Text("Every run that was found is in the numbers."),))
    rows = tuple((str(entry.folder), entry.reason) for entry in left_out)
    blocks: list[Block] = [Table("Not in the numbers", ("folder", "reason"), rows)]
    if any(entry.run is not None and entry.run.status != "finished" for entry in left_out):
        blocks.append(Text("Unfinished runs can be compared up to a step that they all reached: --until STEP."))
    return Section("Left out", tuple(blocks))


def grids_section(files: Sequence[GridFile]) -> Section:
    """The commands that asked for whole grids of runs, and how much of each there is."""
    blocks: list[Block] = []
    for grid in [grid for file in files for grid in file.grids]:
        begun = sum(cell.began() for cell in grid.cells)
        blocks.append(Code(f"{begun} of {counted(len(grid.cells), 'run')} begun", grid.command))
    return Section("Grids of runs", tuple(blocks))


def sources_section(every: Sequence[Findings]) -> Section | None:
    """What the published columns are; None if there are none."""
    sources = {key: text for findings in every if findings.references for key, text in _sources(findings).items()}
    return Section("Published scores", (Bullets(tuple(sources.values())),)) if sources else None


def _sources(findings: Findings) -> Mapping[str, str]:
    references = findings.references
    games = findings.comparison.games
    return references.sources if references and any(game in references.scores for game in games) else {}
