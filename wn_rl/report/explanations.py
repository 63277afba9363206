"""What every report says of its own making, whatever the runs were."""

from wn_rl.report.blocks import Bullets, Section, Text
from wn_rl.report.words import listed
from wn_rl.stats import CONFIDENCE, COVERAGE, MIN_SEEDS, NUM_RESAMPLES

ABOUT_RATES = Text(
    "Section 6.2 of the paper claims that weight normalization works over a wider range of learning rates. "
    "Every arm of these runs is here; chosen rates are ringed in the figures."
)
ABOUT_NORMS = Text(
    "Section 6.2 of the paper: the norm of v grows, the more the larger the learning rate, until the effective "
    "rate suits. Curves are means over the units of a layer, then over seeds; bands are all seeds."
)
ABOUT_SPEED = Text(
    "Runs record their machine, older ones its device and the version of torch alone, and none what else ran on "
    "it: rows can be compared only if they are of one game, on one machine, under one load."
)
ABOUT_DASHES = Text(
    "A dash where there are no such units: the baseline's mean in one of the games is not above the scale's zero."
)

_COVERAGES = listed([f"{held:.0%} at {seeds} seeds" for seeds, held in COVERAGE.items()])

METHOD_SECTION = Section(
    "How the numbers are made",
    (
        Bullets(
            (
                "A test plays games with raw rewards, a small epsilon, and lives that end nothing; its score is "
                "the mean return of its games. Maximum: the greatest test score of a run, as in the paper's "
                "Table 3. Last test: that of its last one. Mean of the curve: the area under the test scores from "
                "the first test to the last, over its length.",
                "The greatest of many noisy tests is too high, the more so the more and the noisier they are: an "
                "arm whose tests are noisier gains by it. The last test and the mean of the curve are free of it.",
                f"Intervals are {CONFIDENCE:.0%} percentile bootstrap intervals ({NUM_RESAMPLES:,} resamples, "
                "fixed seed): seeds are drawn with replacement within each arm and game. Nothing is paired. Arms "
                f"with fewer than {MIN_SEEDS} seeds get points and no interval, and so do numbers that every "
                "resample leaves the same: that few runs agree does not make them certain.",
                "Such intervals are too narrow when seeds are few: with normally distributed scores they hold the "
                f"true difference of two means in so many cases: {_COVERAGES}.",
                "Over games: the interquartile mean leaves out a quarter of all runs at each end, rounded down: "
                "none below four runs. P(improvement) is the probability that a run of the first arm scores more "
                "than one of the baseline, a tie counting half, then the mean over games (Agarwal et al. 2021). "
                "In units of the baseline's mean, 0 is a score of zero, or the random policy's where that is "
                "published.",
                "Intervals over games take the baseline's mean, which is their unit, as exact, though it is of as "
                "few seeds. They take the games as given, and say nothing about games that were not run.",
                "Only runs that share every setting but game, method, learning rate and seed, and that were "
                "trained as long, are ever in one table or figure. Settings of what is recorded, and where and "
                "with how many threads a run was computed, may differ: they change rounding at most.",
            )
        ),
    ),
)
