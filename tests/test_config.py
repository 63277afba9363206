import dataclasses
import json
import re
import typing
from pathlib import Path

import pytest

from wn_rl import config as config_module
from wn_rl.config import (
    ROLES,
    Config,
    EvaluationConfig,
    LearningConfig,
    NetworkConfig,
    Role,
    flat,
    from_json,
    identity,
    names_of,
    settings,
    to_json,
)
from wn_rl.nn import PARAMETERIZATIONS, BatchNorm, Bias, Direct, Normalized, Parameterization
from wn_rl.presets import default_preset, preset_for_frames
from wn_rl.registry import PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_named_after_themselves_and_survive_json(preset: str) -> None:
    made = PRESETS[preset]("breakout")
    assert made.preset == preset
    assert from_json(json.loads(json.dumps(to_json(made)))) == made


def test_learning_rate_of_the_paper() -> None:
    for weight_norm in ("weight_norm", "weight_norm_mean_only_bn"):
        assert Config("x", parameterization=weight_norm).learning_rate == 3e-4
    for other in ("normal", "batch_norm"):
        assert Config("x", parameterization=other).learning_rate == 1e-4
    assert PRESETS["nature"]("x").learning_rate == 2.5e-4


def test_default_preset() -> None:
    assert default_preset("atari", cuda=True) == "paper"
    assert default_preset("atari", cuda=False) == "laptop"
    assert default_preset("minatar", cuda=True) == "minatar"
    assert preset_for_frames((4,)) == "vectors"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": 0}, "--steps must be at least 1, got 0"),
        ({"seed": -1}, "--seed must be at least 0"),
        ({"seed": 2**31}, "--seed must be below"),
        ({"num_envs": -2}, "--num-envs must be at least 1"),
        ({"num_envs": 10**8}, "--num-envs must be at most 4096"),
        ({"network": NetworkConfig(init_states=1)}, "--network.init-states must be at least 2"),
        ({"network": NetworkConfig(initialization="ddi")}, "--network.initialization must be one of"),
        ({"track": ("console", "mlflow")}, "--track must be one of jsonl, console"),
        ({"learning": LearningConfig(batch_size=1), "parameterization": "batch_norm"}, "must be at least 2 for"),
        ({"learning": LearningConfig(discount=float("nan"))}, "--learning.discount must be between 0 and 1"),
        ({"learning": LearningConfig(discount=1.5)}, "--learning.discount must be between 0 and 1"),
        ({"learning": LearningConfig(target_period=10_001)}, "must be a multiple"),
        ({"learning": LearningConfig(replay_capacity=10)}, "is more than"),
        ({"learning": LearningConfig(replay_start=10), "num_envs": 8}, "too few frames"),
        ({"network": NetworkConfig(log_scale=3.0), "parameterization": "normal"}, "needs a weight_norm"),
        ({"network": NetworkConfig(max_v_norm=-1.0)}, "--network.max-v-norm must be greater than 0"),
        ({"steps": 600.0}, "--steps must be a whole number, got 600.0"),
        ({"steps": "5"}, "--steps must be a whole number, got '5'"),
        ({"seed": True}, "--seed must be a whole number, got True"),
        ({"keep_replay": 1}, "--keep-replay must be True or False, got 1"),
        ({"track": "console"}, "--track must be a tuple of names, got 'console'"),
        ({"learning": LearningConfig(discount="1")}, "--learning.discount must be a number, got '1'"),
        ({"torch_threads": 10**6}, "--torch-threads must be at most 1024"),
        ({"learning": LearningConfig(batch_size=10**7)}, "--learning.batch-size 10000000 is more than"),
        ({"network": NetworkConfig(init_states=10**7)}, "--network.init-states 10000000 is more than"),
    ],
)
def test_impossible_values_are_one_clear_line(change: dict, says: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        dataclasses.replace(Config("breakout"), **change)
    assert "\n" not in str(caught.value)


def test_what_weight_norm_alone_has_is_decided_by_the_weight_and_not_by_the_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, weight in (("mine", Normalized), ("weight_norm_less", Direct)):
        monkeypatch.setitem(PARAMETERIZATIONS, name, Parameterization(weight, Bias))
    for option in ({"log_scale": 3.0}, {"max_v_norm": 2.0}):
        network = NetworkConfig(**option)
        assert Config("x", parameterization="mine", network=network).network == network
        with pytest.raises(ValueError, match="needs a weight_norm parameterization, not weight_norm_less"):
            Config("x", parameterization="weight_norm_less", network=network)


def test_a_saved_config_of_another_version_is_refused() -> None:
    values = to_json(Config("breakout"))
    with pytest.raises(ValueError, match="does not fit this version"):
        from_json({**values, "no_such_field": 1})
    for part in ("learning", "steps"):
        with pytest.raises(ValueError, match=f"does not fit this version: .*{part}"):
            from_json({name: value for name, value in values.items() if name != part})
    for part in ("environment", "network", "optimizer", "learning", "evaluation"):
        for field in values[part].keys() - config_module._FIXED_DEFAULTS:  # which earlier versions did not have
            less = {name: value for name, value in values[part].items() if name != field}
            with pytest.raises(ValueError, match=f"does not fit this version: .* has no {field}$"):
                from_json({**values, part: less})


def test_every_field_has_a_help_text() -> None:
    source = (Path(__file__).parents[1] / "wn_rl" / "config.py").read_text()
    fields = re.findall(r"^    (\w+): [A-Z]\w+\[.*\] = .*\n(.*)$", source, flags=re.MULTILINE)
    undocumented = [name for name, following in fields if not following.startswith('    """')]
    assert len(fields) > 30
    assert undocumented == []


def test_every_setting_has_one_role() -> None:
    for name, hint in settings():
        assert sum(isinstance(extra, Role) for extra in typing.get_args(hint)) == 1, name
    assert ROLES.keys() == flat(Config("breakout")).keys()
    assert set.union(*(set(names_of(role)) for role in Role)) == set(ROLES)


def test_what_a_checkpoint_must_share_is_all_that_decides_results_but_the_length() -> None:
    config = Config("breakout")
    same = (
        {"steps": 7},
        {"device": "cuda"},
        {"log_period": 3},
        {"accelerate": "compile"},
        {"evaluation": EvaluationConfig(video_period=1)},
    )
    assert all(identity(dataclasses.replace(config, **change)) == identity(config) for change in same)
    others = (
        {"seed": 2},
        {"num_envs": 2},
        {"learning": LearningConfig(discount=0.5)},
        {"network": NetworkConfig(initialization="torch")},
        {"evaluation": EvaluationConfig(epsilon=0.1)},
    )
    assert all(identity(dataclasses.replace(config, **change)) != identity(config) for change in others)


def test_a_batch_of_one_has_no_statistics_whatever_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARAMETERIZATIONS, "own", Parameterization(Direct, BatchNorm))
    for name in ("batch_norm", "weight_norm_mean_only_bn", "own"):
        with pytest.raises(ValueError, match=f"--learning.batch-size must be at least 2 for {name}"):
            Config("x", parameterization=name, learning=LearningConfig(batch_size=1))
    Config("x", parameterization="weight_norm", learning=LearningConfig(batch_size=1))
