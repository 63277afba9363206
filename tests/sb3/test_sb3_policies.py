"""Our layers in SB3's policies: where they are, how they start, and that SB3's own tools work with them."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
import wandb
from gymnasium import spaces
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn
from wandb.integration.sb3 import WandbCallback

from wn_rl.envs.as_gymnasium import GameEnv
from wn_rl.nn import PARAMETERIZATIONS, AuthorsAdamax, Layer, Normalized
from wn_rl.sb3 import (
    DataDependentInit,
    NetworkFeatures,
    WeightNormActorCriticCnnPolicy,
    WeightNormActorCriticPolicy,
    WeightNormCnnPolicy,
    WeightNormMlpPolicy,
    WeightNormMultiInputPolicy,
)

MINATAR = {"features_extractor_kwargs": {"network": "minatar_cnn"}}
SMALL = {"buffer_size": 500, "learning_starts": 99, "device": "cpu", "seed": 1}


class TwoParts(gymnasium.Env[dict[str, Any], np.int64]):
    """Observations of two parts, and a reward for saying which half the number lies in."""

    observation_space = spaces.Dict(
        {"grid": spaces.Box(0, 1, (3, 4), np.float32), "number": spaces.Box(0, 1, (2,), np.float32)}
    )
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.observation = {
            "grid": self.np_random.random((3, 4), np.float32),
            "number": self.np_random.random(2, np.float32),
        }
        return self.observation, {}

    def step(self, action: np.int64) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        reward = float(action == (self.observation["number"][0] > 0.5))
        return self.reset()[0], reward, False, bool(self.np_random.random() < 0.1), {}


def cnn(parameterization: str = "weight_norm", **settings: Any) -> DQN:
    """A small DQN on MinAtar."""
    policy = {"parameterization": parameterization, **MINATAR, **settings.pop("policy_kwargs", {})}
    env = GameEnv("minatar", "breakout", max_episode_frames=50)
    return DQN(WeightNormCnnPolicy, env, policy_kwargs=policy, **{**SMALL, **settings})


def mlp(parameterization: str = "weight_norm", **settings: Any) -> DQN:
    """A small DQN on CartPole."""
    policy = {"parameterization": parameterization, **settings.pop("policy_kwargs", {})}
    return DQN(WeightNormMlpPolicy, "CartPole-v1", policy_kwargs=policy, **{**SMALL, **settings})


def multi_input(parameterization: str = "weight_norm", **settings: Any) -> DQN:
    """A small DQN on a dictionary of observations."""
    policy = {"parameterization": parameterization, **settings.pop("policy_kwargs", {})}
    return DQN(WeightNormMultiInputPolicy, TwoParts(), policy_kwargs=policy, **{**SMALL, **settings})


MAKERS = pytest.mark.parametrize("make", [cnn, mlp, multi_input])
ALL = pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
Make = Callable[..., DQN]


def layers(module: nn.Module) -> list[Layer]:
    return [child for child in module.modules() if isinstance(child, Layer)]


def plain_layers(module: nn.Module) -> list[nn.Module]:
    return [child for child in module.modules() if isinstance(child, nn.Linear | nn.Conv2d)]


def replay_states(model: DQN, count: int = 64) -> Any:
    return model.replay_buffer.sample(count).observations


def q_values(model: DQN, states: Any) -> Tensor:
    """Of the online network in eval mode."""
    model.policy.set_training_mode(False)
    with torch.no_grad():
        values: Tensor = model.q_net(states)
    return values


@ALL
@MAKERS
def test_extractor_and_head_take_the_parameterization(make: Make, parameterization: str) -> None:
    model = make(parameterization)
    kind = PARAMETERIZATIONS[parameterization]
    for network in (model.q_net, model.q_net_target):
        assert not plain_layers(network)
        assert layers(network)
        assert layers(network.q_net), "the head has none"
        for layer in layers(network):
            assert type(layer.weight) is kind.weight
            assert type(layer.shift) is kind.shift
    trained = {id(p) for group in model.policy.optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in model.q_net.parameters()}


def test_the_cnn_is_that_of_mnih_with_the_head_as_its_last_layer() -> None:
    env = GameEnv("atari", "breakout", stack=4)
    model = DQN(WeightNormCnnPolicy, env, **SMALL)
    shapes = [tuple(layer.weight.v.shape) for layer in layers(model.q_net)]
    assert shapes == [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3), (512, 3136), (4, 512)]


def test_net_arch_is_the_users() -> None:
    assert [layer.weight.v.shape[0] for layer in layers(mlp().q_net)] == [64, 64, 2]
    assert [layer.weight.v.shape[0] for layer in layers(mlp(policy_kwargs={"net_arch": [8]}).q_net)] == [8, 2]
    assert [layer.weight.v.shape[0] for layer in layers(cnn(policy_kwargs={"net_arch": [8]}).q_net)][-2:] == [8, 3]


def test_adamax_with_momentum_a_half_unless_another_is_asked_for() -> None:
    optimizer = mlp().policy.optimizer
    assert type(optimizer) is torch.optim.Adamax
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.999)
    eps = mlp(policy_kwargs={"optimizer_kwargs": {"eps": 1e-5}}).policy.optimizer.param_groups[0]
    assert (eps["betas"], eps["eps"]) == ((0.5, 0.999), 1e-5)
    for other in (AuthorsAdamax, torch.optim.RMSprop):
        assert type(mlp(policy_kwargs={"optimizer_class": other}).policy.optimizer) is other


def test_log_scale() -> None:
    model = cnn(policy_kwargs={"log_scale": 3.0})
    assert all(
        isinstance(layer.weight, Normalized) and layer.weight.log_scale == 3 for layer in layers(model.q_net)
    )
    model.learn(150, callback=DataDependentInit(64))
    assert model.policy._get_constructor_parameters()["log_scale"] == 3


class Recorded:
    """Keeps the states that an initialization draws from a replay buffer."""

    def __init__(self, model: DQN, monkeypatch: pytest.MonkeyPatch) -> None:
        self.states: Any = None
        sample = model.replay_buffer.sample

        def record(*arguments: Any, **settings: Any) -> Any:
            batch = sample(*arguments, **settings)
            self.states = batch.observations
            return batch

        monkeypatch.setattr(model.replay_buffer, "sample", record)


@ALL
@MAKERS
def test_the_initialization_standardizes_q_values_on_states_of_the_replay(
    make: Make, parameterization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(parameterization, gradient_steps=0)
    recorded = Recorded(model, monkeypatch)
    before = {name: value.clone() for name, value in model.q_net.state_dict().items()}
    tensors = [id(parameter) for parameter in model.q_net.parameters()]
    model.learn(100, callback=DataDependentInit(num_states=200))
    q = q_values(model, recorded.states)
    assert q.shape[0] == 200
    torch.testing.assert_close(q.mean(0), torch.zeros(q.shape[1]), atol=1e-4, rtol=0)
    torch.testing.assert_close(q.var(0, correction=0), torch.ones(q.shape[1]), atol=1e-3, rtol=0)
    torch.testing.assert_close(model.q_net_target(recorded.states), q)
    assert tensors == [id(parameter) for parameter in model.q_net.parameters()]
    if parameterization == "weight_norm":
        v = layers(model.q_net)[0].weight.v
        assert not torch.equal(v, before[next(name for name in before if name.endswith("weight.v"))])
        assert 0.03 < float(v.detach().std()) < 0.07


def test_all_parameterizations_start_with_the_same_function(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for parameterization in PARAMETERIZATIONS:
        model = cnn(parameterization, gradient_steps=0)
        recorded = Recorded(model, monkeypatch)
        model.learn(100, callback=DataDependentInit(64))
        found.append((recorded.states, q_values(model, recorded.states)))
    for states, q in found[1:]:
        torch.testing.assert_close(states, found[0][0])
        torch.testing.assert_close(q, found[0][1], atol=1e-4, rtol=1e-4)


def initializations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps at which models are initialized from now on."""
    from wn_rl.sb3 import callbacks

    steps: list[int] = []
    initialize = callbacks.initialize

    def noted(model: DQN, num_states: int) -> None:
        steps.append(model.num_timesteps)
        initialize(model, num_states)

    monkeypatch.setattr(callbacks, "initialize", noted)
    return steps


def test_it_happens_once_and_before_the_first_update(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = initializations(monkeypatch)
    model = mlp()
    model.learn(96, callback=DataDependentInit())
    assert steps == []
    model.learn(200, callback=DataDependentInit(), reset_num_timesteps=False)
    assert steps == [100]
    assert model._n_updates == 50


def test_what_has_learned_is_not_initialized_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = mlp().learn(150, callback=DataDependentInit())
    model.save(tmp_path / "model")
    steps = initializations(monkeypatch)
    model.learn(150, callback=DataDependentInit())
    DQN.load(tmp_path / "model", env=model.env).learn(150, callback=DataDependentInit())
    other = mlp()
    other.set_parameters(tmp_path / "model")
    other.learn(150, callback=DataDependentInit())
    assert steps == []
    mlp().learn(150, callback=DataDependentInit())
    assert steps == [100]


def test_it_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="num_states must be at least 2"):
        DataDependentInit(1)
    with pytest.raises(TypeError, match="DQN, not PPO"):
        PPO(WeightNormActorCriticPolicy, "CartPole-v1", device="cpu").learn(10, callback=DataDependentInit())


@ALL
def test_learning_moves_every_parameter_and_the_target_follows(parameterization: str) -> None:
    model = cnn(parameterization, learning_rate=1e-3, target_update_interval=100_000)
    model.learn(104, callback=DataDependentInit(64))
    before = {name: value.clone() for name, value in model.q_net.state_dict().items()}
    model.learn(200, reset_num_timesteps=False)
    after = model.q_net.state_dict()
    assert [name for name in before if torch.equal(before[name], after[name])] == []
    states = replay_states(model)
    assert not torch.allclose(q_values(model, states), model.q_net_target(states))
    model.target_update_interval = 1
    model._on_step()
    torch.testing.assert_close(q_values(model, states), model.q_net_target(states))


@ALL
@MAKERS
def test_saved_loaded_set_and_copied_models_give_equal_q_values(
    make: Make, parameterization: str, tmp_path: Path
) -> None:
    model = make(parameterization).learn(150, callback=DataDependentInit(64))
    states = replay_states(model)
    expected = q_values(model, states)
    observation = (
        {name: part.numpy() for name, part in states.items()} if isinstance(states, dict) else states.numpy()
    )
    actions, _ = model.predict(observation, deterministic=True)
    np.testing.assert_array_equal(actions, expected.argmax(1))

    model.save(tmp_path / "model")
    model.policy.save(str(tmp_path / "policy"))
    loaded = DQN.load(tmp_path / "model", device="cpu")
    fresh = make(parameterization)
    fresh.set_parameters(tmp_path / "model")
    for other in (loaded, fresh, copy.deepcopy(model)):
        torch.testing.assert_close(q_values(other, states), expected)
        assert other.q_net is not model.q_net
    policy = type(model.policy).load(str(tmp_path / "policy"), device="cpu")
    np.testing.assert_array_equal(policy.predict(observation, deterministic=True)[0], actions)
    assert type(policy.optimizer) is torch.optim.Adamax

    loaded.set_env(model.env)
    loaded.learn(150)
    mean, deviation = evaluate_policy(loaded, loaded.env, n_eval_episodes=2, warn=False)
    assert np.isfinite([mean, deviation]).all()


def test_training_again_from_a_seed_gives_the_same_network() -> None:
    first, second = (mlp().learn(200, callback=DataDependentInit()) for _ in range(2))
    for left, right in zip(first.q_net.parameters(), second.q_net.parameters(), strict=True):
        assert torch.equal(left, right)


def test_the_callback_of_wandb(tmp_path: Path) -> None:
    run = wandb.init(mode="offline", dir=tmp_path, project="test", sync_tensorboard=False)
    try:
        saving = WandbCallback(gradient_save_freq=10, model_save_path=str(tmp_path / "models"), log="all")
        model = cnn().learn(150, callback=CallbackList([DataDependentInit(64), saving]))
    finally:
        run.finish()
    loaded = DQN.load(tmp_path / "models" / "model", device="cpu")
    states = replay_states(model)
    torch.testing.assert_close(q_values(loaded, states), q_values(model, states))


class WithEmbedding(BaseFeaturesExtractor):
    """An extractor of a user's, with a weight that is no layer's."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, features_dim=8)
        self.dense = nn.Linear(observation_space.shape[0], 8)
        self.table = nn.Embedding(2, 8)

    def forward(self, observations: Tensor) -> Tensor:
        embedded: Tensor = self.dense(observations) + self.table((observations[:, 0] > 0).long())
        return embedded


def test_an_extractor_of_the_users_is_converted_and_what_is_not_is_named() -> None:
    with pytest.warns(UserWarning, match=r"weight_norm does not reach .*table: not an nn.Linear"):
        model = mlp(policy_kwargs={"features_extractor_class": WithEmbedding})
    assert not plain_layers(model.q_net)
    assert len(layers(model.q_net)) == 4


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="did you mean weight_norm"):
        mlp("weight_nrom")
    with pytest.raises(ValueError, match="log_scale needs a weight_norm"):
        mlp("normal", policy_kwargs={"log_scale": 3.0})
    with pytest.raises(ValueError, match="channels first"):
        NetworkFeatures(spaces.Box(0, 1, (10, 10, 4), np.uint8), "minatar_cnn")
    with pytest.raises(ValueError, match="at least 36x36"):
        NetworkFeatures(spaces.Box(0, 1, (4, 10, 10), np.uint8))
    with pytest.raises(ValueError, match="did you mean minatar_cnn"):
        NetworkFeatures(spaces.Box(0, 1, (4, 10, 10), np.uint8), "minitar_cnn")


@pytest.mark.parametrize("algorithm", [PPO, A2C])
@ALL
def test_actor_critic_policies(algorithm: type[BaseAlgorithm], parameterization: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"n_steps": 64, "seed": 1, "device": "cpu"}
    plain = algorithm("MlpPolicy", "CartPole-v1", **settings)
    ours = algorithm(
        WeightNormActorCriticPolicy,
        "CartPole-v1",
        policy_kwargs={"parameterization": parameterization},
        **settings,
    )
    assert not plain_layers(ours.policy)
    assert len(layers(ours.policy)) == len(plain_layers(plain.policy))
    trained = {id(p) for group in ours.policy.optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in ours.policy.parameters()}
    states = torch.randn(16, 4)
    for policy in (plain.policy, ours.policy):
        policy.set_training_mode(False)
    torch.testing.assert_close(ours.policy.predict_values(states), plain.policy.predict_values(states))
    ours.learn(128)
    ours.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", device="cpu")
    for policy in (loaded.policy, ours.policy):
        policy.set_training_mode(False)
    torch.testing.assert_close(loaded.policy.predict_values(states), ours.policy.predict_values(states))


def test_actor_critic_on_images() -> None:
    env = GameEnv("atari", "breakout", stack=4)
    model = PPO(WeightNormActorCriticCnnPolicy, env, n_steps=16, batch_size=16, n_epochs=1, device="cpu")
    assert not plain_layers(model.policy)
    model.learn(16)
