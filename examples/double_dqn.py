"""Double DQN (van Hasselt et al. 2016) is one function of its own: python examples/double_dqn.py [STEPS]."""

import dataclasses
import sys

from torch import Tensor

from wn_rl.agents.dqn import q_learning_target
from wn_rl.agents.q_networks import Values
from wn_rl.agents.replay import Batch
from wn_rl.presets import minatar
from wn_rl.run.training import train


def double_q_learning(batch: Batch, target: Values, online: Values) -> Tensor:
    """Targets [B]: the online network chooses the next action, and the target network values it."""
    a_t = online(batch.s_t).argmax(dim=1, keepdim=True)
    return q_learning_target(batch.r_t, batch.discount_t, target(batch.s_t).gather(1, a_t))


if __name__ == "__main__":
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    config = dataclasses.replace(minatar("breakout"), steps=steps)
    outcome = train(config, "runs/double-dqn", targets=double_q_learning)
    sys.exit(outcome.exit_code)
