"""A run of ours as an SB3 model and back: equal Q-values, and everything that learning continues from."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from made_runs import STEP, make_run, states_of
from stable_baselines3 import DQN
from torch import Tensor, nn

from wn_rl.config import Config, NetworkConfig, to_json
from wn_rl.envs.as_gymnasium import GameEnv
from wn_rl.errors import UserError
from wn_rl.nn import PARAMETERIZATIONS, fold
from wn_rl.presets import classic, laptop, minatar
from wn_rl.run.folder import RunFolder, write_json
from wn_rl.sb3 import (
    DataDependentInit,
    WeightNormCnnPolicy,
    WeightNormMlpPolicy,
    model_from_run,
    network_from_model,
)

CONFIGS = {
    "atari": laptop("breakout"),
    "minatar": minatar("seaquest"),
    "classic": dataclasses.replace(classic("acrobot"), network=NetworkConfig(name="mlp", stack=2)),
}
SMALL: dict[str, Any] = {"buffer_size": 500, "learning_starts": 50, "device": "cpu"}

USABLE = [name for name in PARAMETERIZATIONS if not PARAMETERIZATIONS[name].frees_output]


def environment(config: Config) -> GameEnv:
    return GameEnv(config.suite, config.game, stack=config.network.stack)


def q_values(network: nn.Module, states: Tensor) -> Tensor:
    with torch.no_grad():
        values: Tensor = network(states)
    return values


def merged(states: Tensor, env: GameEnv) -> Tensor:
    """The stacks as SB3 sees them."""
    return states.reshape(len(states), *env.observation_space.shape)


@pytest.mark.parametrize("suite", CONFIGS)
@pytest.mark.parametrize("parameterization", USABLE)
def test_there_and_back_with_equal_q_values(suite: str, parameterization: str, tmp_path: Path) -> None:
    log_scale = 3.0 if parameterization == "weight_norm" and suite == "minatar" else None
    config = dataclasses.replace(
        CONFIGS[suite],
        parameterization=parameterization,
        network=dataclasses.replace(CONFIGS[suite].network, log_scale=log_scale),
    )
    network = make_run(tmp_path, config)
    states = states_of(config)
    expected = q_values(network, states)

    model = model_from_run(tmp_path, environment(config), **SMALL)
    model.policy.set_training_mode(False)
    for q_net in (model.q_net, model.q_net_target):
        torch.testing.assert_close(q_values(q_net, merged(states, model.env.envs[0].env)), expected)
    back = network_from_model(model, stack=config.network.stack)
    torch.testing.assert_close(q_values(back, states), expected)
    assert back.state_dict().keys() == network.state_dict().keys()
    assert all(torch.equal(back.state_dict()[name], value) for name, value in network.state_dict().items())
    assert not {id(p) for p in back.parameters()} & {id(p) for p in model.q_net.parameters()}


def test_a_converted_run_plays_the_games_that_our_actor_plays(tmp_path: Path) -> None:
    """Greedy actions of SB3's predict on every observation of an episode, against our folded network."""
    config = CONFIGS["minatar"]
    network = fold(make_run(tmp_path, config))
    env = environment(config)
    model = model_from_run(tmp_path, environment(config), **SMALL)
    observation, _ = env.reset(seed=1)
    for _ in range(200):
        action, _ = model.predict(observation, deterministic=True)
        assert action == q_values(network, torch.from_numpy(observation)[None, None]).argmax()
        observation, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            observation, _ = env.reset()


def test_learning_continues_from_a_converted_run(tmp_path: Path) -> None:
    network = make_run(tmp_path, CONFIGS["minatar"])
    model = model_from_run(tmp_path, environment(CONFIGS["minatar"]), learning_rate=1e-9, **SMALL)
    assert model.num_timesteps == STEP
    assert model._n_updates == (STEP - 5_000) // 4
    model.learn(100, callback=DataDependentInit(32))
    assert model._n_updates > (STEP - 5_000) // 4
    back = network_from_model(model)
    for name, value in network.state_dict().items():  # it was not initialized again
        torch.testing.assert_close(back.state_dict()[name], value, atol=1e-5, rtol=1e-5)
    model.save(tmp_path / "model")
    loaded = DQN.load(tmp_path / "model", device="cpu")
    states = states_of(CONFIGS["minatar"])
    torch.testing.assert_close(q_values(network_from_model(loaded).eval(), states), q_values(back.eval(), states))


def test_frames_are_cut_as_asked() -> None:
    model = DQN(WeightNormCnnPolicy, GameEnv("atari", "pong", stack=4), **SMALL)
    for stack, shape in [(1, (1, 4, 84, 84)), (2, (2, 2, 84, 84)), (4, (4, 84, 84))]:
        assert network_from_model(model, stack=stack)(torch.zeros(1, *shape)).shape == (1, 6)
    for stack in (0, 3):
        with pytest.raises(ValueError, match=f"not a stack of {stack} frames"):
            network_from_model(model, stack=stack)


def test_other_networks_are_not_converted() -> None:
    with pytest.raises(ValueError, match="only the networks of NETWORKS"):
        network_from_model(DQN(WeightNormMlpPolicy, "CartPole-v1", **SMALL))


def damage(run: RunFolder) -> None:
    data = bytearray(run.best_network.read_bytes())
    data[-1] ^= 1
    run.best_network.write_bytes(data)


def exchange_config(run: RunFolder) -> None:
    write_json(run.config_file, {"config": to_json(dataclasses.replace(CONFIGS["minatar"], seed=9))})


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda run: run.config_file.unlink(), "there is no run in"),
        (damage, "is damaged"),
        (lambda run: run.best_network.unlink(), "no best network yet"),
        (exchange_config, "of another run"),
    ],
)
def test_folders_that_hold_no_network_are_refused(fault: Any, message: str, tmp_path: Path) -> None:
    make_run(tmp_path, CONFIGS["minatar"])
    with pytest.raises(RuntimeError, match="size mismatch"):
        model_from_run(tmp_path, GameEnv("minatar", "breakout"), **SMALL)
    fault(RunFolder(tmp_path))
    with pytest.raises(UserError, match=message):
        model_from_run(tmp_path, environment(CONFIGS["minatar"]), **SMALL)
