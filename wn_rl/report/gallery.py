"""Which figures and videos a comparison gets."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from wn_rl.report.blocks import Block, Caution, Clip, Clips, Text
from wn_rl.report.comparison import Comparison
from wn_rl.report.figures import Figure, Look, draw_curves, draw_norms, draw_robustness, make_figure
from wn_rl.report.page import slug
from wn_rl.report.records import Arm, Run
from wn_rl.report.results import Findings
from wn_rl.report.traces import norm_curves
from wn_rl.report.words import game_title
from wn_rl.stats import MIN_SEEDS

VIDEO_SEED = 0

RecordGame = Callable[[Path, Path, int], str]
"""Run folder, mp4 file to write and seed of the game, to what played it and how it went."""


class Gallery:
    """Makes the figures of one comparison; names of files begin with the comparison's."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._comparison = findings.comparison
        self._look = Look(findings.comparison.methods)
        self._prefix = slug(findings.comparison.name)

    def figures(self) -> dict[str, list[Figure]]:
        """By what they show: "own rates", "equal rates", "robustness", "norms"."""
        return {
            "own rates": self._curves(self._findings.chosen, "own-rates"),
            "equal rates": self._equal_rates(),
            "robustness": self._robustness(),
            "norms": self._norms(),
        }

    def overviews(self) -> list[Figure]:
        """All games in one row, for a README or a talk: the chosen arms' curves, and scores by rate."""
        games = self._comparison.games
        curves = [self._panel(self._findings.chosen, game) for game in games]
        figures = [make_figure(f"{self._prefix}-overview", "Test scores", "", curves)]
        if self._has_rates():
            rates = [self._rates_panel(game) for game in games]
            figures.append(make_figure(f"{self._prefix}-rates-overview", "Scores by learning rate", "", rates))
        return figures

    def _panel(self, arms: Sequence[Arm], game: str) -> Callable[..., None]:
        curves = [curve for curve in self._findings.curves if curve.game == game and curve.arm in arms]
        others = self._findings.others(game)
        return draw_curves(curves, others, self._look, self._comparison.test_period, game_title(game))

    def _curves(self, arms: Sequence[Arm], what: str) -> list[Figure]:
        """Figure 4 of the paper for each game that one of the arms has runs of."""
        figures = []
        for game in self._comparison.games:
            seeds = [len(self._comparison.runs_of(arm, game)) for arm in arms]
            if any(seeds):
                name, title = f"{self._prefix}-{what}-{game}", f"{game_title(game)}: test scores by epoch"
                figures.append(make_figure(name, title, _curve_caption(title, seeds), [self._panel(arms, game)]))
        return figures

    def _equal_rates(self) -> list[Figure]:
        """The same at each rate of the baseline's that another method has, but for the figures already made."""
        figures = []
        for rate in self._comparison.rates(self._comparison.baseline):
            arms = [arm for arm in self._comparison.arms if arm.rate == rate]
            if len(arms) > 1 and arms != self._findings.chosen:
                figures += self._curves(arms, f"rate-{rate:g}")
        return figures

    def _robustness(self) -> list[Figure]:
        """Scores against rates for each game, if a method was run at two rates."""
        figures = []
        for game in self._comparison.games if self._has_rates() else ():
            title = f"{game_title(game)}: maximum test score by learning rate"
            caption = f"{title}; means over seeds with 95% intervals where there are {MIN_SEEDS} seeds."
            name = f"{self._prefix}-rates-{game}"
            figures.append(make_figure(name, title, caption, [self._rates_panel(game)]))
        return figures

    def _has_rates(self) -> bool:
        return any(len(self._comparison.rates(method)) > 1 for method in self._comparison.methods)

    def _rates_panel(self, game: str) -> Callable[..., None]:
        scores = [s for s in self._findings.scores if (s.game, s.metric) == (game, "maximum")]
        return draw_robustness(scores, self._findings.chosen, self._look, game_title(game))

    def _norms(self) -> list[Figure]:
        """|v| and g of the chosen arms that have them."""
        figures = []
        for game in self._comparison.games:
            for arm in self._findings.chosen:
                for kind, symbol in (("v", "|v|"), ("g", "|g|")):
                    curves = norm_curves(self._comparison, arm, game, kind)
                    if curves:
                        title = f"{game_title(game)}: {symbol}, {arm.label}"
                        name = f"{self._prefix}-norm-{kind}-{game}-{slug(arm.label)}"
                        caption = f"{title}; 1 at the first row after initialization."
                        figures.append(make_figure(name, title, caption, [draw_norms(curves, symbol, title)]))
        return figures


def _curve_caption(title: str, seeds: Sequence[int]) -> str:
    counts = [number for number in seeds if number]
    if min(counts) >= MIN_SEEDS:
        return f"{title}. Means over seeds; bands are 95% intervals of the mean."
    return f"{title}. Arms with fewer than {MIN_SEEDS} seeds: one line a run; else means with 95% intervals."


def record_clips(findings: Findings, out: Path, record_game: RecordGame) -> list[Block]:
    """One game by the best network of each chosen arm, all on the same seed; what fails is said and left out."""
    comparison = findings.comparison
    blocks: list[Block] = [Text(_CLIPS)]
    for game in comparison.games:
        clips = []
        for arm in findings.chosen:
            runs = comparison.runs_of(arm, game)
            if not runs:
                continue
            run = max(runs, key=lambda run: _best_score(comparison, run))
            path = f"videos/{slug(f'{comparison.name} {game} {arm.label}')}.mp4"
            try:
                played = record_game(run.folder, out / path, VIDEO_SEED)
                title = f"{game_title(game)}, {arm.label}, training seed {run.seed}: {played}"
                clips.append(Clip(title, path, (out / path).read_bytes()))
            except Exception as error:  # whatever a game or a file may raise: the numbers are worth more
                blocks.append(Caution(f"No video of {arm.label} on {game_title(game)}: {error}"))
        if clips:
            blocks.append(Clips(tuple(clips)))
    return blocks


_CLIPS = (
    "One game by each arm, all from the same seed of the game. The network is the best of the arm's best run: "
    "a lucky one, and one game says little."
)


def _best_score(comparison: Comparison, run: Run) -> float:
    return float(np.nanmax(run.scores(comparison.num_epochs)))
