"""Play one game by the Q-values of a trained network: python examples/q_values.py [RUN]."""

import sys

import torch

from wn_rl.envs.as_gymnasium import GameEnv
from wn_rl.run.loading import load_run

run = load_run(sys.argv[1] if len(sys.argv) > 1 else "runs/breakout")
env = GameEnv(run.config.suite, run.config.game, stack=run.config.network.stack, max_episode_frames=5_000)


@torch.no_grad()
def q_values(observation):
    """[A], one value an action, of one observation of a GameEnv."""
    stacked = torch.from_numpy(observation).reshape(1, *run.network[0].stacked_shape)  # [1, K, *O]
    return run.network(stacked)[0]


observation, _ = env.reset(seed=1)
print("values of the first observation:", q_values(observation).tolist())
score, over = 0.0, False
while not over:
    observation, reward, terminated, truncated, _ = env.step(q_values(observation).argmax().item())
    score, over = score + reward, terminated or truncated
print(f"{run.name}: return {score:g}, playing greedily")
