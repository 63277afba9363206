"""Our layers in SB3's policies: where they are, how they start, and that SB3's own tools work with them."""

import copy
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
from torch.utils._pytree import tree_map
from wandb.integration.sb3 import WandbCallback

from wn_rl.envs.as_gymnasium import GameEnv
from wn_rl.nn import PARAMETERIZATIONS, AuthorsAdamax, Normalized
from wn_rl.nn.layers import layers_of
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


KINDS = {
    "cnn": (WeightNormCnnPolicy, lambda: GameEnv("minatar", "breakout", max_episode_frames=50), MINATAR),
    "mlp": (WeightNormMlpPolicy, lambda: "CartPole-v1", {}),
    "multi_input": (WeightNormMultiInputPolicy, TwoParts, {}),
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
USABLE = [name for name in PARAMETERIZATIONS if not PARAMETERIZATIONS[name].frees_output]
ALL = pytest.mark.parametrize("parameterization", USABLE)


def dqn(kind: str, parameterization: str = "weight_norm", **settings: Any) -> DQN:
    """A small DQN: cnn on MinAtar, mlp on CartPole, multi_input on a dictionary of observations."""
    policy, make_env, network = KINDS[kind]
    policy_kwargs = {"parameterization": parameterization, **network, **settings.pop("policy_kwargs", {})}
    return DQN(policy, make_env(), policy_kwargs=policy_kwargs, **{**SMALL, **settings})


def plain_layers(module: nn.Module) -> list[nn.Module]:
    return [child for child in module.modules() if isinstance(child, nn.Linear | nn.Conv2d)]


def replay_states(model: DQN, count: int = 64) -> Any:
    return model.replay_buffer.sample(count).observations


def trained(model: BaseAlgorithm) -> set[int]:
    """Ids of the parameters that the optimizer changes."""
    return {id(p) for group in model.policy.optimizer.param_groups for p in group["params"]}


def ids(module: nn.Module) -> set[int]:
    return {id(parameter) for parameter in module.parameters()}


def q_values(model: DQN, states: Any) -> Tensor:
    """Of the online network in eval mode."""
    model.policy.set_training_mode(False)
    with torch.no_grad():
        values: Tensor = model.q_net(states)
    return values


@ALL
@EVERY_KIND
def test_extractor_and_head_take_the_parameterization(kind: str, parameterization: str) -> None:
    model, expected = dqn(kind, parameterization), PARAMETERIZATIONS[parameterization]
    for network in (model.q_net, model.q_net_target):
        assert not plain_layers(network)
        assert layers_of(network.q_net), "the head has none"
        made = {(type(layer.weight), type(layer.shift)) for layer in layers_of(network)}
        assert made == {(expected.weight, expected.shift)}
    assert trained(model) == ids(model.q_net)


def test_the_cnn_is_that_of_mnih_with_the_head_as_its_last_layer() -> None:
    model = DQN(WeightNormCnnPolicy, GameEnv("atari", "breakout", stack=4), **SMALL)
    shapes = [tuple(layer.weight.v.shape) for layer in layers_of(model.q_net)]
    assert shapes == [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3), (512, 3136), (4, 512)]


@pytest.mark.parametrize(
    ("kind", "policy", "units"),
    [("mlp", {}, [64, 64, 2]), ("mlp", {"net_arch": [8]}, [8, 2]), ("cnn", {"net_arch": [8]}, [16, 128, 8, 3])],
)
def test_net_arch_is_the_users(kind: str, policy: dict[str, Any], units: list[int]) -> None:
    model = dqn(kind, policy_kwargs=policy)
    assert [layer.weight.v.shape[0] for layer in layers_of(model.q_net)] == units


def test_adamax_with_momentum_a_half_unless_another_is_asked_for() -> None:
    optimizer = dqn("mlp").policy.optimizer
    assert type(optimizer) is torch.optim.Adamax
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.999)
    eps = dqn("mlp", policy_kwargs={"optimizer_kwargs": {"eps": 1e-5}}).policy.optimizer.param_groups[0]
    assert (eps["betas"], eps["eps"]) == ((0.5, 0.999), 1e-5)
    for other in (AuthorsAdamax, torch.optim.RMSprop):
        assert type(dqn("mlp", policy_kwargs={"optimizer_class": other}).policy.optimizer) is other


def test_log_scale() -> None:
    model = dqn("cnn", policy_kwargs={"log_scale": 3.0})
    assert all(
        isinstance(layer.weight, Normalized) and layer.weight.log_scale == 3 for layer in layers_of(model.q_net)
    )
    model.learn(150, callback=DataDependentInit(64))
    assert model.policy._get_constructor_parameters()["log_scale"] == 3


def initialized(
    kind: str, parameterization: str, num_states: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[DQN, Any]:
    """A model just after its initialization, and the states that were drawn for it."""
    model, drawn = dqn(kind, parameterization, gradient_steps=0), []
    sample = model.replay_buffer.sample
    monkeypatch.setattr(
        model.replay_buffer,
        "sample",
        lambda *rest, **named: drawn.append(sample(*rest, **named)) or drawn[-1],  # type: ignore[func-returns-value]
    )
    model.learn(100, callback=DataDependentInit(num_states))
    (batch,) = drawn
    return model, batch.observations


@ALL
@EVERY_KIND
def test_the_initialization_standardizes_q_values_on_states_of_the_replay(
    kind: str, parameterization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = layers_of(dqn(kind, parameterization).q_net)[0].weight.v
    model, states = initialized(kind, parameterization, 200, monkeypatch)
    q = q_values(model, states)
    assert q.shape[0] == 200
    torch.testing.assert_close(q.mean(0), torch.zeros(q.shape[1]), atol=1e-4, rtol=0)
    torch.testing.assert_close(q.var(0, correction=0), torch.ones(q.shape[1]), atol=1e-3, rtol=0)
    torch.testing.assert_close(model.q_net_target(states), q)
    assert trained(model) == ids(model.q_net)  # it was initialized in place
    if parameterization == "weight_norm":
        v = layers_of(model.q_net)[0].weight.v
        assert not torch.equal(v, before)
        assert 0.03 < float(v.detach().std()) < 0.07


def test_all_parameterizations_start_with_the_same_function(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for parameterization in USABLE:
        model, states = initialized("cnn", parameterization, 64, monkeypatch)
        found.append((states, q_values(model, states)))
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
    model = dqn("mlp").learn(96, callback=DataDependentInit())
    assert steps == []
    model.learn(200, callback=DataDependentInit(), reset_num_timesteps=False)
    assert steps == [100]
    assert model._n_updates == 50


def test_what_has_learned_is_not_initialized_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = dqn("mlp").learn(150, callback=DataDependentInit())
    model.save(tmp_path / "model")
    steps = initializations(monkeypatch)
    model.learn(150, callback=DataDependentInit())
    DQN.load(tmp_path / "model", env=model.env).learn(150, callback=DataDependentInit())
    other = dqn("mlp")
    other.set_parameters(tmp_path / "model")
    other.learn(150, callback=DataDependentInit())
    assert steps == []
    dqn("mlp").learn(150, callback=DataDependentInit())
    assert steps == [100]


@ALL
def test_learning_moves_every_parameter_and_the_target_follows(parameterization: str) -> None:
    model = dqn("cnn", parameterization, learning_rate=1e-3, target_update_interval=100_000)
    model.learn(104, callback=DataDependentInit(64))
    before = {name: value.clone() for name, value in model.q_net.state_dict().items()}
    model.learn(200, reset_num_timesteps=False)
    after = model.q_net.state_dict()
    fixed = [name for name in before if torch.equal(before[name], after[name])]
    has_fixed_gain = parameterization == "normal_fixed_gain"
    assert fixed == ([name for name in before if name.endswith("weight.g")] if has_fixed_gain else [])
    states = replay_states(model)
    assert not torch.allclose(q_values(model, states), model.q_net_target(states))
    model.target_update_interval = 1
    model._on_step()
    torch.testing.assert_close(q_values(model, states), model.q_net_target(states))


@ALL
@EVERY_KIND
def test_saved_loaded_set_and_copied_models_give_equal_q_values(
    kind: str, parameterization: str, tmp_path: Path
) -> None:
    model = dqn(kind, parameterization).learn(150, callback=DataDependentInit(64))
    states = replay_states(model)
    expected = q_values(model, states)
    observation = tree_map(Tensor.numpy, states)
    actions, _ = model.predict(observation, deterministic=True)
    np.testing.assert_array_equal(actions, expected.argmax(1))

    model.save(tmp_path / "model")
    model.policy.save(str(tmp_path / "policy"))
    loaded = DQN.load(tmp_path / "model", device="cpu")
    fresh = dqn(kind, parameterization)
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
    first, second = (dqn("mlp").learn(200, callback=DataDependentInit()) for _ in range(2))
    for left, right in zip(first.q_net.parameters(), second.q_net.parameters(), strict=True):
        assert torch.equal(left, right)


def test_the_callback_of_wandb(tmp_path: Path) -> None:
    run = wandb.init(mode="offline", dir=tmp_path, project="test", sync_tensorboard=False)
    try:
        saving = WandbCallback(gradient_save_freq=10, model_save_path=str(tmp_path / "models"), log="all")
        model = dqn("cnn").learn(150, callback=CallbackList([DataDependentInit(64), saving]))
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
        model = dqn("mlp", policy_kwargs={"features_extractor_class": WithEmbedding})
    assert not plain_layers(model.q_net)
    assert len(layers_of(model.q_net)) == 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dqn("mlp", "weight_nrom"), "did you mean weight_norm"),
        (lambda: dqn("mlp", "normal", policy_kwargs={"log_scale": 3.0}), "log_scale needs a weight_norm"),
        (lambda: NetworkFeatures(spaces.Box(0, 1, (4, 10, 10), np.uint8)), "at least 36x36"),
        (lambda: NetworkFeatures(spaces.Box(0, 1, (4, 9, 9), np.uint8), "minitar_cnn"), "did you mean minatar"),
        (lambda: DataDependentInit(1), "num_states must be at least 2"),
    ],
)
def test_invalid_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("algorithm", [PPO, A2C])
@ALL
def test_actor_critic_policies(algorithm: type[BaseAlgorithm], parameterization: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"n_steps": 64, "seed": 1, "device": "cpu"}
    plain = algorithm("MlpPolicy", "CartPole-v1", **settings)
    policy = {"parameterization": parameterization}
    ours = algorithm(WeightNormActorCriticPolicy, "CartPole-v1", policy_kwargs=policy, **settings)
    assert not plain_layers(ours.policy)
    assert len(layers_of(ours.policy)) == len(plain_layers(plain.policy))
    assert trained(ours) == ids(ours.policy)

    def assert_equal_values(left: BaseAlgorithm, right: BaseAlgorithm) -> None:
        states = torch.randn(16, 4)
        values = [model.policy.train(False).predict_values(states) for model in (left, right)]
        torch.testing.assert_close(*values)

    assert_equal_values(ours, plain)
    ours.learn(128)
    ours.save(tmp_path / "model")
    assert_equal_values(algorithm.load(tmp_path / "model", device="cpu"), ours)


def test_actor_critic_on_images() -> None:
    env = GameEnv("atari", "breakout", stack=4)
    model = PPO(WeightNormActorCriticCnnPolicy, env, n_steps=16, batch_size=16, n_epochs=1, device="cpu")
    assert not plain_layers(model.policy)
    model.learn(16)
    with pytest.raises(TypeError, match="DQN, not PPO"):
        model.learn(16, callback=DataDependentInit())


@pytest.mark.parametrize("parameterization", ["layer_norm", "projected", "spectral_norm"])
def test_forms_that_sb3_cannot_update_are_refused(parameterization: str) -> None:
    with pytest.raises(ValueError, match="needs updates of ours, not SB3's: choose from normal"):
        dqn("mlp", parameterization)
