"""The head of a comparison's chapter: what was run, how much of it is in, and what does not fit together."""

from collections.abc import Sequence

import numpy as np

from wn_rl.report.blocks import Block, Caution, Text
from wn_rl.report.comparison import Comparison, differing_settings
from wn_rl.report.grids import GridFile
from wn_rl.report.records import Run, series
from wn_rl.report.words import counted, game_title, listed, seeds_between


def what_was_run(comparison: Comparison, every: Sequence[Comparison], grids: Sequence[GridFile]) -> list[Block]:
    """In a paragraph, with a note on each thing that makes the numbers less than they seem.

    every: all comparisons of the report. grids: that its runs may be of.
    """
    methods = listed([method.label for method in comparison.methods])
    games = listed([game_title(game) for game in comparison.games])
    text = (
        f"{counted(len(comparison.runs), 'run')}: {methods} on {games}, {_seeds(comparison)} to an arm and game. "
        f"Scores are those of {counted(comparison.num_epochs, 'test')} up to step {comparison.horizon:,}, one "
        f"every {comparison.test_period:,} steps{_games_of_a_test(comparison)}; an arm is a method at one "
        "learning rate."
    )
    return [
        *(Text(text), *_parts_of_grids(comparison, grids), *_compared_apart(comparison, every)),
        *(*_left_out(comparison), *_without_score(comparison), *_of_other_versions(comparison)),
    ]


def _seeds(comparison: Comparison) -> str:
    return seeds_between(
        [len(comparison.runs_of(arm, game)) for arm in comparison.arms for game in comparison.games]
    )


def _games_of_a_test(comparison: Comparison) -> str:
    """E.g. ", of 30 games at the median"; empty where no run tells."""
    told = [dict(zip(*series(run.rows, "eval/episodes"), strict=True)) for run in comparison.runs]
    numbers = [number for games in told for step, number in games.items() if step <= comparison.horizon]
    return f", of {np.median(numbers):g} games at the median" if numbers else ""


def _parts_of_grids(comparison: Comparison, grids: Sequence[GridFile]) -> list[Block]:
    """How much there is of what the comparison's runs were asked for with, games of other suites aside."""
    here = {run.folder.resolve() for run in comparison.runs}
    blocks: list[Block] = []
    for file in grids:
        asked = [cell for cell in file.cells if cell.suite == comparison.suite]
        found = sum(cell.folder.resolve() in here for cell in asked)
        if found:
            text = f"{found} of the {counted(len(asked), 'run')} of the grid in {file.out} are in."
            blocks.append(Text(text) if found == len(asked) else Caution(text))
    return blocks


def _compared_apart(comparison: Comparison, every: Sequence[Comparison]) -> list[Block]:
    twins = [other for other in every if other.suite == comparison.suite]
    if len(twins) == 1:
        return []
    names = listed(differing_settings(twins))
    return [Caution(f"Other {comparison.suite} runs are compared apart, for they differ in {names}.")]


def _left_out(comparison: Comparison) -> list[Block]:
    if not comparison.left_out:
        return []
    number = counted(len(comparison.left_out), "run")
    failed = sum(entry.run is not None and entry.run.status == "failed" for entry in comparison.left_out)
    but = f", {failed} of them failed: what is left of an arm may be its luckier part" if failed else ""
    return [Caution(f"{number} of this kind left out{but}. They are listed at the end.")]


def _without_score(comparison: Comparison) -> list[Block]:
    missing = sum(int(np.isnan(run.scores(comparison.num_epochs)).sum()) for run in comparison.runs)
    if not missing:
        return []
    number = counted(missing, "test")
    return [Caution(f"{number} without a score (no game ended in them, or they were not logged).")]


def _of_other_versions(comparison: Comparison) -> list[Block]:
    """What differs, e.g. "torch 2.12.0 (normal) and 2.13.0 (normal and weight norm)"."""
    recorded = [(run.arm.method.label, versions_of(run)) for run in comparison.runs]
    names = dict.fromkeys(name for _, versions in recorded for name in versions)
    differing = []
    for name in names:
        users: dict[str, dict[str, None]] = {}
        for method, versions in recorded:
            users.setdefault(versions.get(name, "none"), {})[method] = None
        if len(users) > 1:
            differing.append(
                f"{name} " + listed([f"{version} ({listed([*who])})" for version, who in users.items()])
            )
    return [Caution(f"Runs of different versions are pooled: {'; '.join(differing)}.")] if differing else []


def versions_of(run: Run) -> dict[str, str]:
    """What config.json records of the code and its libraries; empty for none."""
    versions = run.record.get("versions")
    return (
        {name: str(version) for name, version in versions.items() if version} if isinstance(versions, dict) else {}
    )
