"""Our layers in Stable-Baselines3: policies, the data-dependent initialization, and runs as SB3 models.

DQN(WeightNormCnnPolicy, env, learning_rate=3e-4).learn(1_000_000, callback=DataDependentInit())
"""

from wn_rl.sb3.callbacks import DataDependentInit
from wn_rl.sb3.conversion import model_from_run, network_from_model
from wn_rl.sb3.policies import (
    NetworkFeatures,
    WeightNormActorCriticCnnPolicy,
    WeightNormActorCriticPolicy,
    WeightNormCnnPolicy,
    WeightNormMlpPolicy,
    WeightNormMultiInputPolicy,
)

__all__ = [
    "DataDependentInit",
    "NetworkFeatures",
    "WeightNormActorCriticCnnPolicy",
    "WeightNormActorCriticPolicy",
    "WeightNormCnnPolicy",
    "WeightNormMlpPolicy",
    "WeightNormMultiInputPolicy",
    "model_from_run",
    "network_from_model",
]
