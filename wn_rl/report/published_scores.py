"""Published scores to compare with: raw game scores, never trained or measured here."""

SOURCES = {
    "random": "Mnih et al. 2015, Extended Data Table 2: uniformly random actions",
    "human": "Mnih et al. 2015, Extended Data Table 2: professional human games tester",
    "dqn_nature": "Mnih et al. 2015, Extended Data Table 2: DQN, best network, 30 games of at most 5 minutes",
    "dqn_normal": "Salimans & Kingma 2016, Table 3: DQN, normal parameterization, maximum score",
    "dqn_weight_norm": "Salimans & Kingma 2016, Table 3: DQN, weight normalization, maximum score",
}
"""What each source of REFERENCE_SCORES is."""

REFERENCE_SCORES = {
    "breakout": {
        "random": 1.7,
        "human": 31.8,
        "dqn_nature": 401.2,
        "dqn_normal": 410.0,
        "dqn_weight_norm": 403.0,
    },
    "enduro": {
        "random": 0.0,
        "human": 309.6,
        "dqn_nature": 301.8,
        "dqn_normal": 1250.0,
        "dqn_weight_norm": 1448.0,
    },
    "seaquest": {
        "random": 68.4,
        "human": 20182.0,
        "dqn_nature": 5286.0,
        "dqn_normal": 7188.0,
        "dqn_weight_norm": 7375.0,
    },
    "space_invaders": {
        "random": 148.0,
        "human": 1652.0,
        "dqn_nature": 1976.0,
        "dqn_normal": 1779.0,
        "dqn_weight_norm": 2179.0,
    },
}
"""Game of the suite atari, then source, to score."""

SHOWN = {"dqn_normal": "paper: normal", "dqn_weight_norm": "paper: weight norm", "dqn_nature": "Mnih et al."}
"""Sources that stand beside our scores, and what they are called there."""
