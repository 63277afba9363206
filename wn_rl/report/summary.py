"""What a report begins with: what all comparisons found, in a line for each pair of arms."""

from collections.abc import Sequence

from wn_rl.report.blocks import Block, Bullets, Caution, Section, Text
from wn_rl.report.results import Contrast, Findings, GameDifference
from wn_rl.report.tables import METRIC_TITLES
from wn_rl.report.words import counted, false_findings, finding, game_title, listed, seeds_between
from wn_rl.stats import CONFIDENCE


def summary_section(every: Sequence[Findings]) -> Section:
    """Each comparison at own and at equal rates, and how far its intervals can be trusted."""
    blocks: list[Block] = []
    for findings in every:
        name = findings.comparison.name
        baseline = findings.comparison.baseline
        if baseline not in findings.comparison.methods:
            blocks.append(Caution(f"{name}: no run of {baseline.label}, so nothing is compared with it."))
        note = " (rates chosen on these same runs)" if findings.choice.basis == "same runs" else ""
        for question, contrasts, remark in (
            ("each method at its own rate", findings.own_rates, note),
            ("at equal rates", findings.equal_rates, ""),
        ):
            if contrasts:
                blocks.append(Text(f"{name}, {question}, by the maximum test score:"))
                blocks.append(Bullets(tuple(summary_line(contrast, remark) for contrast in contrasts)))
    return Section("In short", (*blocks, *_trust([game for found in every for game in _with_intervals(found)])))


def _with_intervals(findings: Findings) -> list[GameDifference]:
    """The differences with an interval, each once, by every score."""
    contrasts = {(c.treatment, c.baseline): c for c in (*findings.own_rates, *findings.equal_rates)}
    games = [game for contrast in contrasts.values() for game in contrast.games]
    return [game for game in games if game.difference.low is not None]


def _trust(games: Sequence[GameDifference]) -> list[Block]:
    """What the intervals of these differences are worth; empty without one."""
    if not games:
        return []
    return [
        Text(
            f"These lines read {counted(len(games), 'interval')} of {CONFIDENCE:.0%} one by one, and with few "
            f"seeds such intervals are too narrow: where nothing differs, about {false_findings()} would still "
            f"leave out zero. The fewest seeds behind one here are {min(game.seeds for game in games)}."
        )
    ]


def summary_line(contrast: Contrast, remark: str = "") -> str:
    """Two arms by what the intervals say of the maximum test score, and where the other scores disagree."""
    sides = {game.game: game.difference.side_of(0) for game in contrast.of("maximum")}
    sentences = [_says(contrast.of("maximum"), contrast)]
    for metric in ("final", "area"):
        unlike = [game for game in contrast.of(metric) if game.difference.side_of(0) != sides[game.game]]
        sentences += [f"By the {METRIC_TITLES[metric]}: {_says(unlike, contrast)}"] if unlike else []
    return f"{contrast.treatment.label} against {contrast.baseline.label}{remark}: {' '.join(sentences)}"


def _says(games: Sequence[GameDifference], contrast: Contrast) -> str:
    """E.g. "weight norm higher in Breakout (3 seeds); weight norm lower in Seaquest (5 seeds)."."""
    by_side: dict[int | None, list[GameDifference]] = {}
    for game in games:
        by_side.setdefault(game.difference.side_of(0), []).append(game)
    found = []
    for side in [side for side in (1, -1, 0, None) if side in by_side]:
        names = listed([game_title(game.game) for game in by_side[side]])
        seeds = seeds_between([game.seeds for game in by_side[side]])
        found.append(f"{finding(side, contrast.treatment.method.label)} in {names} ({seeds})")
    return f"{'; '.join(found)}."
