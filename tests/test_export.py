"""Exported agents: equal Q-values by every way of loading, no code in any file, and a true model card."""

import dataclasses
import importlib.util
import json
import pickle
import re
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from huggingface_hub import ModelCard
from made_runs import STEP, make_run, spec_of, states_of
from torch import Tensor, nn

from wn_rl import cli
from wn_rl.config import Config, NetworkConfig
from wn_rl.envs.as_gymnasium import GameEnv
from wn_rl.errors import UserError
from wn_rl.export import Agent, Score, export, load_exported, scores_of_run
from wn_rl.export.layers import KINDS, build
from wn_rl.export.standalone import ExportedAgent
from wn_rl.nn import NETWORKS, PARAMETERIZATIONS, Preprocess, fold
from wn_rl.presets import classic, laptop, minatar
from wn_rl.sb3 import model_from_run, network_from_model

CONFIGS = {
    "atari": laptop("breakout"),
    "minatar": minatar("seaquest"),
    "classic": dataclasses.replace(classic("acrobot"), network=NetworkConfig(name="mlp", stack=2)),
}
NAME = f"best network, step {STEP:,}"


def wn_rl(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    return int(stop.value.code or 0)


def q_values(network: nn.Module, states: Tensor) -> Tensor:
    with torch.no_grad():
        values: Tensor = network(states)
    return values


def agent_of(config: Config, folder: Path) -> Agent:
    """The agent of a run made in the folder."""
    spec = spec_of(config)
    network = fold(make_run(folder, config))
    assert isinstance(network, nn.Sequential)
    return Agent(network, spec.dtype, spec.action_meanings, NAME, {})


def small_agent(*modules: nn.Module) -> Agent:
    """An agent on vectors of four numbers, with these modules after its preprocessing."""
    named = OrderedDict((f"layer{number}", module) for number, module in enumerate(modules))
    network = nn.Sequential(OrderedDict(preprocess=Preprocess((4,), 1, 1.0), **named))
    return Agent(network.eval(), "float32", ("LEFT", "RIGHT"), "a small network", {})


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small agent, to be copied before it is changed."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("export") / "agent"
    export(small_agent(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)), folder, onnx=False)
    return folder


@pytest.mark.parametrize("suite", CONFIGS)
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_every_way_of_loading_gives_equal_q_values(suite: str, parameterization: str, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIGS[suite], parameterization=parameterization)
    network = make_run(tmp_path / "run", config)
    assert wn_rl("export", str(tmp_path / "run"), "--out", str(tmp_path / "agent"), "--onnx") == 0
    states = states_of(config)
    expected = q_values(network, states)
    agent = load_exported(tmp_path / "agent")
    torch.testing.assert_close(q_values(agent.network, states), expected, atol=1e-5, rtol=1e-5)
    standalone = ExportedAgent(tmp_path / "agent").q_values(states)
    torch.testing.assert_close(standalone, q_values(agent.network, states))
    session = onnxruntime.InferenceSession(tmp_path / "agent" / "model.onnx")
    for count in (1, 5, 32):
        (found,) = session.run(None, {"observations": states[:count].numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected[:count], atol=1e-5, rtol=1e-5)
    spec = spec_of(config)
    assert agent.actions == spec.action_meanings
    assert agent.dtype == spec.dtype
    assert agent.name == NAME
    assert agent.run["config"]["game"] == config.game
    assert {type(layer) for layer in agent.network} <= {Preprocess, *(kind.module for kind in KINDS.values())}


def test_onnx_takes_observations_as_the_environment_gives_them(tmp_path: Path) -> None:
    export(agent_of(CONFIGS["atari"], tmp_path / "run"), tmp_path / "agent")
    model = onnx.load(tmp_path / "agent" / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    (given,) = model.graph.input
    (result,) = model.graph.output
    assert (given.name, result.name) == ("observations", "q_values")
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    sizes = [size.dim_value for size in given.type.tensor_type.shape.dim]
    assert sizes == [0, 4, 84, 84]  # 0: any batch
    assert not model.graph.initializer[0].external_data


def test_a_loaded_agent_plays(tmp_path: Path) -> None:
    """A whole game in the loaded agent's and in the run's own hands is the same game."""
    network = make_run(tmp_path / "run", CONFIGS["minatar"])
    export(agent_of(CONFIGS["minatar"], tmp_path / "run"), tmp_path / "agent", onnx=False)
    agent = load_exported(tmp_path / "agent")
    games = []
    for player in (network, agent.network):
        env = GameEnv("minatar", "seaquest", max_episode_frames=500)
        observation, _ = env.reset(seed=1)
        seen, over = [observation], False
        while not over:
            action = q_values(player, torch.from_numpy(observation)[None, None]).argmax()
            observation, _, terminated, truncated, _ = env.step(np.int64(action))
            over = terminated or truncated
            seen.append(observation)
        games.append(np.stack(seen))
    np.testing.assert_array_equal(*games)


def test_a_network_trained_by_sb3_can_be_exported(tmp_path: Path) -> None:
    make_run(tmp_path / "run", CONFIGS["minatar"])
    model = model_from_run(tmp_path / "run", GameEnv("minatar", "seaquest"), buffer_size=10, device="cpu")
    network = fold(network_from_model(model))
    assert isinstance(network, nn.Sequential)
    agent = Agent(network, "uint8", ("A", "B", "C", "D", "E", "F"), "by SB3", {})
    export(agent, tmp_path / "agent")
    states = states_of(CONFIGS["minatar"])
    torch.testing.assert_close(
        q_values(load_exported(tmp_path / "agent").network, states), q_values(network, states)
    )
    assert "# Deep Q-Network\n" in (tmp_path / "agent" / "README.md").read_text()


def test_every_network_of_the_registry_can_be_exported() -> None:
    assert {config.network.name for config in CONFIGS.values()} == set(NETWORKS)


def test_every_kind_of_layer_is_known_to_the_standalone_loader(tmp_path: Path) -> None:
    every = small_agent(
        nn.Linear(4, 48), nn.Tanh(), nn.ReLU(), nn.Unflatten(1, (3, 4, 4)), nn.Conv2d(3, 2, 3), nn.Flatten()
    )
    with pytest.raises(UserError, match="layer3 is a Unflatten, and only conv2d, linear"):
        export(every, tmp_path / "agent", onnx=False)
    source = Path(importlib.util.find_spec("wn_rl.export.standalone").origin).read_text()  # type: ignore[union-attr, arg-type]
    assert set(re.findall(r'case "(\w+)"', source)) == set(KINDS)


@pytest.mark.parametrize("padding", ["same", "valid", 1, (1, 2)])
def test_the_settings_of_convolutions_are_kept(padding: Any, tmp_path: Path) -> None:
    conv = nn.Conv2d(4, 6, 3, padding=padding, groups=2, dilation=(2, 1))
    modules = OrderedDict(preprocess=Preprocess((4, 9, 9), 1, 1.0), conv=conv, flatten=nn.Flatten())
    agent = Agent(nn.Sequential(modules).eval(), "float32", (), "a convolution", {})
    export(agent, tmp_path / "agent")
    states = agent.random_observations(3, torch.Generator().manual_seed(1))
    expected = q_values(agent.network, states)
    torch.testing.assert_close(q_values(load_exported(tmp_path / "agent").network, states), expected)
    torch.testing.assert_close(ExportedAgent(tmp_path / "agent").q_values(states), expected)


def test_a_setting_that_would_be_lost_is_noticed(tmp_path: Path) -> None:
    conv = nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect")
    modules = OrderedDict(preprocess=Preprocess((4, 9, 9), 1, 1.0), conv=conv, flatten=nn.Flatten())
    agent = Agent(nn.Sequential(modules).eval(), "float32", (), "a convolution", {})
    with pytest.raises(UserError, match="a setting that its description does not keep"):
        export(agent, tmp_path / "agent", onnx=False)
    assert list(tmp_path.iterdir()) == []


def changed_record(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """A fault: config.json with a change."""

    def apply(folder: Path) -> None:
        record = json.loads((folder / "config.json").read_text())
        change(record)
        (folder / "config.json").write_text(json.dumps(record))

    return apply


def flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def write_a_pickle(folder: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (folder / "executed",)

    (folder / "model.safetensors").write_bytes(pickle.dumps(Evil()))


def other_weights(folder: Path) -> None:
    from wn_rl.run.tensor_files import write_network_file

    write_network_file(folder / "model.safetensors", {"layer0.weight": torch.zeros(2, 2)}, {})


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "no exported agent"),
    "config is no JSON": (lambda folder: (folder / "config.json").write_text("{"), "is damaged"),
    "config is nested deeply": (lambda folder: (folder / "config.json").write_text("[" * 100_000), "is damaged"),
    "a run's config": (changed_record(lambda record: record.pop("format")), "not that of an exported agent"),
    "newer version": (changed_record(lambda record: record.update(version=2)), "of version 2, this wn-rl reads 1"),
    "no layers": (changed_record(lambda record: record.pop("layers")), "is damaged"),
    "layers are a number": (changed_record(lambda record: record.update(layers=3)), "is damaged"),
    "unknown kind": (
        changed_record(lambda record: record["layers"][0].update(kind="os.system")),
        "cannot be built",
    ),
    "layer is a word": (changed_record(lambda record: record["layers"].append("relu")), "cannot be built"),
    "extra setting": (changed_record(lambda record: record["layers"][0].update(bias=1)), "cannot be built"),
    "setting is a dict": (changed_record(lambda record: record["layers"][0].update(in_features={})), "cannot be"),
    "negative size": (
        changed_record(lambda record: record["layers"][0].update(in_features=-4)),
        "cannot be built",
    ),
    "huge size": (changed_record(lambda record: record["layers"][0].update(in_features=10**15)), "does not fit"),
    "dtype": (changed_record(lambda record: record["observation"].update(dtype="object")), "cannot be object"),
    "bit flipped": (flip_a_bit, "is damaged"),
    "pickle": (write_a_pickle, "is damaged"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "is damaged"),
    "other weights": (other_weights, "does not fit config.json"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_folder_is_refused_in_one_line_and_nothing_is_run(
    fault: str, exported: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "agent"
    folder.mkdir()
    for file in exported.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    load_exported(folder)
    damage, message = FAULTS[fault]
    damage(folder)
    with pytest.raises(UserError, match=message) as refusal:
        load_exported(folder)
    assert "\n" not in str(refusal.value)
    assert not (folder / "executed").exists()


def test_sizes_that_a_file_claims_are_not_allocated() -> None:
    huge = {"name": "a", "kind": "linear", "in_features": 10**9, "out_features": 10**9}
    (layer,) = build([huge]).values()
    assert next(layer.parameters()).is_meta


def test_a_folder_that_is_not_new_is_refused_and_a_failed_export_leaves_none(
    exported: Path, tmp_path: Path
) -> None:
    agent = small_agent(nn.Linear(4, 2))
    (tmp_path / "file").touch()
    for taken in (exported, tmp_path / "file"):
        with pytest.raises(UserError, match="is not empty"):
            export(agent, taken, onnx=False)
    (tmp_path / "empty").mkdir()
    export(agent, tmp_path / "empty", onnx=False)
    with pytest.raises(UserError, match="no metrics"):
        export(agent, tmp_path / "deep" / "agent", curve_of=tmp_path, onnx=False)
    assert list((tmp_path / "deep").iterdir()) == []


def test_without_the_packages_of_onnx_it_says_which(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from wn_rl.export import onnx as module

    monkeypatch.setattr(module, "PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(UserError, match=r'\(no_such_package\): pip install "wn-rl\[export\]"'):
        export(small_agent(nn.Linear(4, 2)), tmp_path / "agent")
    export(small_agent(nn.Linear(4, 2)), tmp_path / "agent", onnx=False)
    assert sorted(path.name for path in (tmp_path / "agent").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_an_onnx_file_with_other_values_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from wn_rl.export import onnx as module

    agent, other = (small_agent(nn.Linear(4, 2)) for _ in range(2))
    true_export = torch.onnx.export
    monkeypatch.setattr(
        module.torch.onnx,
        "export",
        lambda network, *arguments, **named: true_export(other.network, *arguments, **named),
    )
    with pytest.raises(UserError, match="differ from the network's by"):
        export(agent, tmp_path / "agent")


def test_the_whole_command_on_a_run_that_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = tmp_path / "run", tmp_path / "agent"
    quick = ["--learning.replay-start", "200", "--evaluation.period", "500", "--evaluation.steps", "200"]
    settings = [*quick, "--evaluation.video-period", "0", "--steps", "1000", "--track", "jsonl"]
    assert wn_rl("train", "breakout", "--suite", "minatar", *settings, "--run-dir", str(run)) == 0
    for epsilon in ("0.05", "0.1"):
        assert wn_rl("evaluate", str(run), "--episodes", "4", "--epsilon", epsilon, "--random-policy") == 0
    assert wn_rl("export", str(run), "--out", str(out)) == 0
    assert (out / "curve.png").stat().st_size > 1000
    agent = load_exported(out)
    assert "command" not in agent.run
    assert agent.run["config"]["steps"] == 1000
    card = (out / "README.md").read_text()
    assert str(tmp_path) not in card
    assert str(tmp_path) not in (out / "config.json").read_text()
    assert card.count(f"| {agent.name} | nature |") == 2
    assert card.count("| random policy | nature | 1 |") == 1
    assert wn_rl("export", str(run), "--out", str(tmp_path / "latest"), "--network", "latest", "--no-onnx") == 0
    assert load_exported(tmp_path / "latest").name == "latest network, step 1,000"


def metadata_of(agent: Agent, scores: list[Score], folder: Path) -> ModelCard:
    export(agent, folder, scores=scores, onnx=False)
    return ModelCard((folder / "README.md").read_text())


def test_the_card_is_what_the_hub_reads(tmp_path: Path) -> None:
    config = dataclasses.asdict(CONFIGS["minatar"])
    agent = dataclasses.replace(small_agent(nn.Linear(4, 2)), run={"config": config})
    scores = [
        Score("a small network", "nature", 0.05, 30, 12.5, 3.25),
        Score("random policy", "nature", 1, 30, 1, 1),
    ]
    card = metadata_of(agent, scores, tmp_path / "agent")
    assert card.data.to_dict()["library_name"] == "wn_rl"
    assert {"reinforcement-learning", "minatar", "seaquest", "weight_norm"} <= set(card.data.tags)
    (result,) = card.data.eval_results  # the random policy is not the model's
    assert (result.metric_type, result.metric_value) == ("mean_reward", "12.50 +/- 3.25")
    assert result.dataset_name == "minatar/seaquest"
    assert "30 games, nature protocol, epsilon 0.05" in result.metric_name
    assert "| a small network | nature | 0.05 | 30 | 12.50 | 3.25 |" in card.text
    assert "0 LEFT, 1 RIGHT" in card.text
    assert "games of at most 18,000 frames" in card.text


def test_a_card_without_scores_claims_none(tmp_path: Path) -> None:
    card = metadata_of(small_agent(nn.Linear(4, 2)), [], tmp_path / "agent")
    assert card.data.eval_results is None
    assert "Not tested after training" in card.text


def test_scores_are_of_the_most_games_of_this_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def row(policy: str, mean: float, **changes: Any) -> str:
        values = {"policy": policy, "protocol": "nature", "epsilon": 0.05, "returns": [mean] * 3}
        return json.dumps({**values, "return_mean": mean, "return_std": 0.0, **changes})

    assert scores_of_run(tmp_path, NAME) == []
    rows = [row(NAME, 1), row("latest network, step 9", 7), row("random policy", 0.5, epsilon=1)]
    rows += [row(NAME, 2), row(NAME, 5, returns=[5.0]), row(NAME, 3, protocol="epoch")]
    (tmp_path / "evaluations.jsonl").write_text("\n".join(rows))
    found = [(score.policy, score.protocol, score.mean, score.games) for score in scores_of_run(tmp_path, NAME)]
    assert found == [(NAME, "nature", 2, 3), ("random policy", "nature", 0.5, 3), (NAME, "epoch", 3, 3)]
    (tmp_path / "evaluations.jsonl").write_text("\n".join(['{"policy": "ran', *rows]))
    assert len(scores_of_run(tmp_path, NAME)) == 3
    assert "line 1 of" in capsys.readouterr().err


def test_weights_are_safetensors_that_others_read(exported: Path) -> None:
    tensors = safetensors.torch.load_file(exported / "model.safetensors")
    assert set(tensors) == {"layer0.weight", "layer0.bias", "layer2.weight", "layer2.bias"}


def test_the_example_runs(tmp_path: Path) -> None:
    example = Path(__file__).parents[1] / "examples" / "export_sb3.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", example, "300"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "tensor([[" in done.stdout
    assert load_exported(Path("breakout_agent")).actions == ("NOOP", "LEFT", "RIGHT")


def test_an_exported_agent_plays_and_is_tested_by_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(
        minatar("breakout"),
        environment=dataclasses.replace(minatar("breakout").environment, max_episode_frames=60),
    )
    make_run(tmp_path / "run", config)
    folder = tmp_path / "agent"
    assert wn_rl("export", str(tmp_path / "run"), "--out", str(folder), "--no-onnx") == 0
    results = []
    for place in (tmp_path / "run", folder):
        capsys.readouterr()
        assert wn_rl("evaluate", str(place), "--episodes", "2") == 0
        results.append(capsys.readouterr().out)
        assert wn_rl("play", str(place), "--video", str(tmp_path / f"{place.name}.mp4")) == 0
    assert results[0] == results[1]  # the same network, the same games
    assert (tmp_path / "agent.mp4").read_bytes() == (tmp_path / "run.mp4").read_bytes()


def test_an_agent_that_no_run_made_cannot_be_played(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent = agent_of(CONFIGS["minatar"], tmp_path / "run")
    export(dataclasses.replace(agent, run={}), tmp_path / "agent", onnx=False)
    assert wn_rl("play", str(tmp_path / "agent")) == 2
    assert "does not say which game it plays" in capsys.readouterr().err
