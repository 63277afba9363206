"""Train an agent, load it and evaluate it, from Python: python examples/train_and_test.py [STEPS]."""

import dataclasses
import sys

from wn_rl.agents.evaluation import run_nature_evaluation
from wn_rl.presets import minatar
from wn_rl.run.loading import load_run
from wn_rl.run.training import train

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000

config = minatar("breakout")
config = dataclasses.replace(
    config,
    steps=STEPS,
    parameterization="weight_norm_mean_only_bn",
    learning=dataclasses.replace(config.learning, batch_size=32),
)
outcome = train(config, "runs/breakout")  # as `wn-rl train` does: the run can be resumed
if outcome.status != "finished":  # Ctrl-C, say
    sys.exit(outcome.exit_code)

run = load_run("runs/breakout")  # the network of its best evaluation
episodes = run_nature_evaluation(run.config, run.network, seed=1, num_episodes=10)
print(f"{run.name}: mean raw return {episodes.return_mean:.2f} of {len(episodes.returns)} episodes")
