"""Numbers and findings in words: no claim that its interval does not carry."""

import math
from collections.abc import Sequence

from wn_rl.errors import counted
from wn_rl.report.stats import MIN_SEEDS, Estimate
from wn_rl.run.folder import file_name

MISSING = "\N{EN DASH}"


def game_title(game: str) -> str:
    """E.g. "Space Invaders"."""
    return game.replace("_", " ").title()


def slug(title: str) -> str:
    """A title as the name of a file: "minatar, 300,000 steps" to minatar-300000-steps."""
    return file_name(title.lower().replace(",", ""))


def score(value: float) -> str:
    """About three digits, and zero only for zero: 1,448, 23.9, 0.62, 0.003; a dash for NaN."""
    if math.isnan(value):
        return MISSING
    size = abs(value)
    decimals = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.0995 or not size else 3
    text = f"{value:,.{decimals}f}" if size >= 0.0005 or not size else f"{value:.1g}"
    return text.replace("-", "\N{MINUS SIGN}")


def with_interval(estimate: Estimate, signed: bool = False) -> str:
    """E.g. "0.83 [0.5, 1.2]"; without brackets if the estimate has no interval, or if all resamples are equal."""
    text = f"+{score(estimate.point)}" if signed and estimate.point > 0 else score(estimate.point)
    if estimate.low is None or estimate.high is None or estimate.low == estimate.high:
        return text
    return f"{text} [{score(estimate.low)}, {score(estimate.high)}]"


def reading(difference: Estimate, seeds: int) -> str:
    """What the interval of a difference says. seeds: of the arm with fewer."""
    if difference.sign is None:
        return f"{counted(seeds, 'seed') if seeds < MIN_SEEDS else 'all scores equal'}: no interval"
    return {1: "higher", -1: "lower", 0: "no difference shown"}[difference.sign]


def listed(items: Sequence[str]) -> str:
    """E.g. "a, b and c"."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
