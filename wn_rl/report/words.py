"""Numbers and findings in words: no claim that its interval does not carry."""

from collections.abc import Collection, Sequence

from wn_rl.stats import COVERAGE, MIN_SEEDS, Estimate


def game_title(game: str) -> str:
    """E.g. "Space Invaders"."""
    return game.replace("_", " ").title()


def score(value: float) -> str:
    """Three digits or so, and never zero for what is not: 1,448, 23.9, 0.62, 0.003."""
    size = abs(value)
    decimals = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.0995 or not size else 3
    text = f"{value:,.{decimals}f}" if size >= 0.0005 or not size else f"{value:.1g}"
    return text.replace("-", "\N{MINUS SIGN}")


def signed(value: float) -> str:
    """With its sign."""
    return f"+{score(value)}" if value > 0 else score(value)


def interval(estimate: Estimate) -> str:
    """E.g. " [0.5, 1.2]", empty where there is none, or where every resample gave the same."""
    if estimate.low is None or estimate.high is None or estimate.low == estimate.high:
        return ""
    return f" [{score(estimate.low)}, {score(estimate.high)}]"


def with_interval(estimate: Estimate) -> str:
    """E.g. "0.83 [0.5, 1.2]"."""
    return score(estimate.point) + interval(estimate)


NO_DIFFERENCE = "no difference shown at this many seeds"
NO_INTERVAL = f"no interval: fewer than {MIN_SEEDS} seeds, or all alike"


def finding(side: int | None, treatment: str) -> str:
    """What an interval on that side of zero says (see `Estimate.side_of`)."""
    return {1: f"{treatment} higher", -1: f"{treatment} lower", 0: NO_DIFFERENCE, None: NO_INTERVAL}[side]


def reading(difference: Estimate, treatment: str, seeds: int) -> str:
    """What the interval of a difference says. seeds: of the arm with fewer."""
    side = difference.side_of(0)
    return finding(side, treatment) + (f" ({counted(seeds, 'seed')})" if side else "")


def false_findings() -> str:
    """E.g. "one in 5 at 3 seeds an arm, one in 8 at 5": intervals that miss zero where nothing differs."""
    rates = [f"one in {round(1 / (1 - held))} at {seeds}" for seeds, held in COVERAGE.items()]
    return listed([f"{rates[0]} seeds an arm", *rates[1:]])


def listed(items: Sequence[str]) -> str:
    """E.g. "a, b and c"."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def counted(number: int, noun: str) -> str:
    """E.g. "1 run", "12 runs"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def seeds_between(numbers: Collection[int]) -> str:
    """E.g. "3 seeds", "0 to 3 seeds"."""
    low, high = min(numbers), max(numbers)
    return counted(low, "seed") if low == high else f"{low} to {high} seeds"
