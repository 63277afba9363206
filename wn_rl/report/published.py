"""What makes the published Atari scores unlike ours, said beside the table that shows both."""

from typing import Any

from wn_rl.config import Config, to_json
from wn_rl.report.comparison import Comparison, flat_settings
from wn_rl.report.words import listed

_PAPER_STEPS = 50_000_000
_FRAMES_PER_STEP = 4


def protocol_notes(comparison: Comparison) -> list[str]:
    """The differences between the protocols of these runs, of Salimans & Kingma 2016 and of Mnih et al. 2015."""
    settings = comparison.settings
    share = comparison.horizon / _PAPER_STEPS
    notes = [
        f"Length: these runs made {comparison.horizon:,} agent steps "
        f"({_FRAMES_PER_STEP * comparison.horizon:,} frames), {share:.1%} of the 50 million of Mnih et al.; the "
        "paper follows them and does not state its own number.",
        "Paper: one number a game, the greatest score over test epochs, at the learning rate that gave the "
        "greatest; it does not state how many seeds. Ours: the greatest over epochs of each run, then the mean "
        "over seeds.",
        "Mnih et al.: the network of the best test, tested again in 30 games of at most five minutes from random "
        "starts. The second test leaves out the luck of the first: their column is not too high as a greatest of "
        "many tests is.",
    ]
    if "enduro" in comparison.games:
        cap = int(settings["environment.max_episode_frames"]) / 60 / 60
        notes.append(
            "Enduro above all: the five-minute cap of Mnih et al. holds a game near 300 points, and without it "
            "they give 1,006 (their Extended Data Table 3, 10 million steps). The code that the paper adapted has "
            f"no cap. These runs cut a game at {cap:.0f} minutes."
        )
    different = _unlike_the_paper(comparison)
    if different:
        notes.append(f"Settings that are not those of the paper preset: {listed(different)}.")
    return notes


def _unlike_the_paper(comparison: Comparison) -> list[str]:
    """E.g. "num_envs 8 (paper 1)"."""
    paper = flat_settings(to_json(Config(comparison.games[0])))
    return [
        f"{name} {_shown(value)} (paper {_shown(paper[name])})"
        for name, value in comparison.settings.items()
        if name in paper and value != paper[name]
    ]


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
