"""Published scores to compare with: raw game scores, never trained or measured here."""

from collections.abc import Mapping

Scores = Mapping[str, Mapping[str, float]]
"""Game, then source (a name in `SOURCES`), to raw score."""

SOURCES = {
    "random": "Mnih et al. 2015, Extended Data Table 2: uniformly random actions",
    "human": "Mnih et al. 2015, Extended Data Table 2: professional human games tester",
    "dqn_nature": "Mnih et al. 2015, Extended Data Table 2: DQN, best network, 30 episodes of at most 5 minutes",
    "dqn_normal": "Salimans & Kingma 2016, Table 3: DQN, normal parameterization, maximum score",
    "dqn_weight_norm": "Salimans & Kingma 2016, Table 3: DQN, weight normalization, maximum score",
}
SHOWN = {"dqn_normal": "paper: normal", "dqn_weight_norm": "paper: weight norm", "dqn_nature": "Mnih et al."}
"""Sources that are shown beside our scores, and their names there."""
_SCORES = {  # in the order of SOURCES
    "breakout": (1.7, 31.8, 401.2, 410.0, 403.0),
    "enduro": (0.0, 309.6, 301.8, 1250.0, 1448.0),
    "seaquest": (68.4, 20182.0, 5286.0, 7188.0, 7375.0),
    "space_invaders": (148.0, 1652.0, 1976.0, 1779.0, 2179.0),
}
REFERENCE_SCORES: Scores = {game: dict(zip(SOURCES, row, strict=True)) for game, row in _SCORES.items()}
"""Of games of the suite atari."""
