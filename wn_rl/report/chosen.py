"""How each method came to its learning rate, and what that does to its scores."""

import math
from collections.abc import Sequence

from wn_rl.report.blocks import Block, Caution, Text
from wn_rl.report.comparison import Comparison, differing_settings
from wn_rl.report.rates import Candidate, Choice, candidates
from wn_rl.report.results import Findings
from wn_rl.report.tables import candidates_table
from wn_rl.report.words import counted, listed

_RULE = Text(
    "A method's rate, one for all games, is that of the highest mean over games of its mean maximum test scores, "
    "each game scaled to run from 0 for its worst arm, of any method, to 1 for its best. A rate that lacks one of "
    "the method's games cannot win, and one at which a run failed only if there is no other; of equal rates the "
    "lowest wins."
)


def how_chosen(findings: Findings) -> list[Block]:
    """The chosen rates, the rule, and what the choice makes of the numbers below."""
    choice, comparison = findings.choice, findings.comparison
    if choice.basis == "single":
        return [Text(f"Each method was run at one rate only ({_rates(choice)}): nothing was chosen here.")]
    if choice.basis == "other runs":
        return [*_chosen_on_others(comparison, choice), *_about_choice(choice), candidates_table(choice)]
    told = {method: len(comparison.rates(method)) for method in comparison.methods}
    tried = listed([f"{counted(number, 'rate')} of {method.label}" for method, number in told.items()])
    return [
        Text(f"Chosen rates: {_rates(choice)}."),
        *_about_choice(choice),
        Caution(
            f"The rates were chosen on these same runs, from {tried}: scores at a chosen rate are too high, the "
            "more so the more rates were tried, and so the method with more of them is favoured. Differences and "
            "intervals take no account of the choice. Fresh seeds would tell (--rates-from)."
        ),
    ]


def _rates(choice: Choice) -> str:
    return listed([f"{method.label} {rate:g}" for method, rate in choice.rates.items()])


def _chosen_on_others(comparison: Comparison, choice: Choice) -> list[Block]:
    other = choice.chosen_on
    chosen = {method: rate for method, rate in choice.rates.items() if method in other.methods}
    blocks: list[Block] = [
        Text(
            f"Chosen rates: {listed([f'{method.label} {rate:g}' for method, rate in chosen.items()])}, on "
            f"{counted(len(other.runs), 'other run')} of {other.horizon:,} steps; the scores here are of the runs "
            "below alone."
        )
    ]
    fixed = [method.label for method in choice.rates if method not in other.methods]
    if fixed:
        blocks.append(Text(f"Run at one rate only, so that nothing was chosen: {listed(fixed)}."))
    absent = [method.label for method in comparison.methods if choice.arm(method) not in comparison.arms]
    if absent:
        blocks.append(Caution(f"Not at a chosen rate here, and so not in this section: {listed(absent)}."))
    unlike = [name for name in differing_settings([comparison, other]) if name != "steps"]
    if unlike:
        blocks.append(Caution(f"Those runs differ from the ones here in {listed(unlike)} too."))
    shared = len(_identities(comparison) & _identities(other))
    if shared:
        blocks.append(
            Caution(f"{counted(shared, 'run')} here share game, arm and seed with one that rates were chosen on.")
        )
    return blocks


def _identities(comparison: Comparison) -> set[object]:
    return {(run.game, run.arm, run.seed) for run in comparison.runs}


def _about_choice(choice: Choice) -> list[Block]:
    """The rule, the rates that it ruled out, and the chosen ones that have no neighbour on one side."""
    blocks: list[Block] = [_RULE]
    every = candidates(choice.chosen_on)
    out = [f"{c.arm.label} ({why})" for c in every if (why := _ruled_out(c, choice))]
    if out:
        blocks.append(Caution(f"Ruled out: {listed(out)}."))
    edges = _at_an_edge(choice)
    if edges:
        blocks.append(
            Caution(
                f"At an end of the rates that were tried, so that a better one may lie beyond: {listed(edges)}."
            )
        )
    return blocks


def _ruled_out(candidate: Candidate, choice: Choice) -> str:
    """Why the arm could not win; empty if it could, or did for lack of another."""
    if math.isnan(candidate.mean):
        return "lacks a game"
    harmed = candidate.num_failed and candidate.arm != choice.arm(candidate.arm.method)
    return f"{counted(candidate.num_failed, 'run')} failed" if harmed else ""


def _at_an_edge(choice: Choice) -> Sequence[str]:
    """E.g. "normal 0.001, the greatest of 3"."""
    found = []
    for method, rate in choice.rates.items():
        tried = choice.chosen_on.rates(method)
        if len(tried) > 1 and rate in (tried[0], tried[-1]):
            end = "least" if rate == tried[0] else "greatest"
            found.append(f"{method.label} {rate:g} (the {end} of {len(tried)})")
    return found
