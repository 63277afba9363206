"""Exported agents: equal Q-values by every way of loading, no code in any file, and a true model card."""

import dataclasses
import json
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from huggingface_hub import ModelCard
from made_agents import small_agent, snippet_of
from made_runs import STEP, make_run, spec_of, states_of
from run_tools import wn_rl
from torch import Tensor, nn

from wn_rl.config import Config, EnvironmentConfig, NetworkConfig, to_json
from wn_rl.envs.as_gymnasium import GameEnv
from wn_rl.errors import UserError
from wn_rl.export import Agent, export, load_exported
from wn_rl.export import folder as folder_module
from wn_rl.nn import NETWORKS, PARAMETERIZATIONS, fold, scale_in_first_convolution
from wn_rl.nn.shifts import LayerNorm
from wn_rl.presets import classic, laptop, minatar, vectors
from wn_rl.run.files import sha256
from wn_rl.run.tensor_files import read_network_file, write_network_file
from wn_rl.sb3 import model_from_run, network_from_model

CONFIGS = {
    "atari": laptop("breakout"),
    "minatar": minatar("seaquest"),
    "classic": dataclasses.replace(classic("acrobot"), network=NetworkConfig(name="mlp", stack=2)),
}
NAME = f"best network, step {STEP:,}"


def q_values(network: nn.Module, states: Tensor) -> Tensor:
    with torch.no_grad():
        values: Tensor = network(states)
    return values


def agent_of(config: Config, folder: Path, run: dict[str, Any] | None = None) -> Agent:
    """The agent of a run made in the folder."""
    spec, network = spec_of(config), fold(make_run(folder, config))
    assert isinstance(network, nn.Sequential)
    return Agent(network, config.network.name, spec.dtype, spec.action_meanings, NAME, run or {})


@pytest.mark.parametrize("suite", CONFIGS)
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_every_way_of_loading_gives_equal_q_values(
    suite: str, parameterization: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(CONFIGS[suite], parameterization=parameterization)
    network = make_run(tmp_path / "run", config)
    has_layer_norm = PARAMETERIZATIONS[parameterization].shift is LayerNorm
    (tmp_path / "run" / "videos").mkdir()
    for step in (1, 2):
        (tmp_path / "run" / "videos" / f"step_{step:012d}.mp4").write_bytes(bytes([step]))
    code = wn_rl("export", str(tmp_path / "run"), "--out", str(tmp_path / "agent"), "--onnx")
    assert code == (2 if has_layer_norm else 0)
    if has_layer_norm:
        return
    states = states_of(config)
    expected = q_values(network, states)
    assert (tmp_path / "agent" / "replay.mp4").read_bytes() == b"\2"
    assert "(replay.mp4)" in (tmp_path / "agent" / "README.md").read_text()
    agent = load_exported(tmp_path / "agent")
    torch.testing.assert_close(q_values(agent.network, states), expected, atol=1e-5, rtol=1e-5)
    assert (agent.architecture, agent.name) == (config.network.name, NAME)
    assert (agent.dtype, agent.actions) == (spec_of(config).dtype, spec_of(config).action_meanings)
    assert agent.run["config"] == to_json(config)
    about = {entry.key: entry.value for entry in onnx.load(tmp_path / "agent" / "model.onnx").metadata_props}
    assert about.items() >= {"game": config.game, "network": NAME, "parameterization": parameterization}.items()
    assert all(type(layer).__module__.startswith("torch.nn") for layer in agent.network[1:])
    monkeypatch.chdir(tmp_path / "agent")
    for words, batch in (("import load_file", states), ("import onnxruntime", states.numpy())):
        names: dict[str, Any] = {"observations": batch}
        exec(snippet_of(tmp_path / "agent", words), names)
        torch.testing.assert_close(torch.as_tensor(names["q_values"]), expected, atol=1e-5, rtol=1e-5)


def test_every_network_of_the_registry_is_exported_above() -> None:
    assert {config.network.name for config in CONFIGS.values()} == set(NETWORKS)


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
    session = onnxruntime.InferenceSession(tmp_path / "agent" / "model.onnx")
    assert session.run(None, {"observations": np.zeros((5, 4, 84, 84), np.uint8)})[0].shape == (5, 4)


def test_a_network_trained_by_sb3_can_be_exported(tmp_path: Path) -> None:
    make_run(tmp_path / "run", CONFIGS["minatar"])
    model = model_from_run(tmp_path / "run", GameEnv("minatar", "seaquest"), buffer_size=10, device="cpu")
    network = fold(network_from_model(model))
    assert isinstance(network, nn.Sequential)
    export(Agent(network, "minatar_cnn", "uint8", tuple("ABCDEF"), "by SB3", {}), tmp_path / "agent")
    states = states_of(CONFIGS["minatar"])
    torch.testing.assert_close(
        q_values(load_exported(tmp_path / "agent").network, states), q_values(network, states)
    )
    assert "# Deep Q-Network\n" in (tmp_path / "agent" / "README.md").read_text()


def test_a_network_that_is_not_that_of_its_architecture_is_refused(tmp_path: Path) -> None:
    agent = agent_of(CONFIGS["atari"], tmp_path / "run")
    handed_over = make_run(tmp_path / "run", CONFIGS["atari"])
    scale_in_first_convolution(handed_over)
    other_shapes = small_agent().network
    for change, message in (
        ({"architecture": "mine"}, "unknown network 'mine'"),
        ({"network": nn.Sequential(agent.network[0], *other_shapes[1:])}, "Missing key"),
        ({"network": fold(handed_over)}, "the values of the network nature_cnn differ"),
        (
            {"network": nn.Sequential(OrderedDict([*agent.network.named_children(), ("tanh", nn.Tanh())]))},
            "differ",
        ),
    ):
        with pytest.raises(UserError, match=message) as refusal:
            export(dataclasses.replace(agent, **change), tmp_path / "agents" / "agent", onnx=False)
        assert "\n" not in str(refusal.value)
    assert list((tmp_path / "agents").iterdir()) == []


def write_a_pickle(folder: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (folder / "executed",)

    (folder / "model.safetensors").write_bytes(pickle.dumps(Evil()))


def half_the_precision(folder: Path) -> None:
    tensors, metadata = read_network_file(folder / "model.safetensors")
    write_network_file(folder / "model.safetensors", {name: t.half() for name, t in tensors.items()}, metadata)


def set_values(**values: Any) -> Callable[[Path], None]:
    """A fault: config.json with other values (None takes one out), and the digest of it, as a stranger could."""

    def change(folder: Path) -> None:
        record = {**json.loads((folder / "config.json").read_text()), **values}
        kept = {name: value for name, value in record.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(kept))
        tensors, _ = read_network_file(folder / "model.safetensors")
        digest = sha256((folder / "config.json").read_bytes())
        write_network_file(folder / "model.safetensors", tensors, {"config.json": digest})

    return change


def edit_the_config(folder: Path) -> None:
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace("LEFT", "UP"))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a run's config": (set_values(format=None), "is not that of an agent"),
    "config is edited": (edit_the_config, "it was changed after the export"),
    "other version": (set_values(version=1), "which this version of wn-rl exports"),
    "no architecture": (set_values(architecture=None), "it has no architecture"),
    "unknown architecture": (set_values(architecture="os.system"), "unknown network 'os.system'"),
    "another architecture": (set_values(architecture="minatar_cnn"), "minatar_cnn needs frames"),
    "another size": (set_values(frame_shape=[5]), "size mismatch for dense1.weight"),
    "huge size": (set_values(frame_shape=[10**15]), "could not be built"),
    "size beyond 64 bits": (set_values(frame_shape=[10**30]), "is not valid"),
    "negative stack": (set_values(stack=-1), "stack must be positive"),
    "scale is not finite": (set_values(scale=float("nan")), "scale must be of type float"),
    "no action": (set_values(actions=[]), "num_actions must be positive"),
    "a name that moves the cursor": (set_values(name="\x1b[2J"), "printable texts"),
    "pickle": (write_a_pickle, "is damaged"),
    "weights in float16": (half_the_precision, "the weights have other types of numbers"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_folder_is_refused_in_one_line_and_nothing_is_run(fault: str, tmp_path: Path) -> None:
    export(small_agent(), tmp_path / "agent", onnx=False)
    damage, message = FAULTS[fault]
    damage(tmp_path / "agent")
    with pytest.raises(UserError, match=message) as refusal:
        load_exported(tmp_path / "agent")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "agent" / "executed").exists()


def fail(*arguments: object, **options: object) -> None:
    raise OSError("no space left")


def test_a_folder_that_is_not_new_is_refused_and_a_failed_export_leaves_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(UserError, match="is not empty"):
            export(small_agent(), taken, onnx=False)
    (tmp_path / "empty").mkdir()
    export(small_agent(), tmp_path / "empty", onnx=False)
    files = sorted(path.name for path in (tmp_path / "empty").iterdir())
    assert files == ["README.md", "config.json", "model.safetensors"]
    curve: Any = SimpleNamespace(savefig=fail)
    with pytest.raises(OSError, match="no space left"):
        export(small_agent(), tmp_path / "deep" / "agent", curve=curve, onnx=False)
    assert list((tmp_path / "deep").iterdir()) == []


def test_without_the_packages_of_onnx_it_says_which(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(folder_module, "ONNX_PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(UserError, match=r'\(no_such_package\): pip install "wn-rl\[export\]"'):
        export(small_agent(), tmp_path / "agent")
    assert list(tmp_path.iterdir()) == []


def test_an_onnx_file_with_other_values_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other, true_export = small_agent(seed=1), torch.onnx.export
    monkeypatch.setattr(
        torch.onnx, "export", lambda network, *rest, **named: true_export(other.network, *rest, **named)
    )
    with pytest.raises(UserError, match=r"the values of model\.onnx differ"):
        export(small_agent(), tmp_path / "agent")


def test_the_whole_command_on_a_run_that_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = tmp_path / "run", tmp_path / "agent"
    quick = ["--learning.replay-start", "200", "--evaluation.period", "500", "--evaluation.steps", "200"]
    settings = [*quick, "--evaluation.video-period", "0", "--steps", "1000", "--track", "jsonl"]
    assert wn_rl("train", "breakout", "--suite", "minatar", *settings, "--run-dir", str(run)) == 0
    for epsilon in ("0.05", "0.1"):
        assert wn_rl("evaluate", str(run), "--episodes", "4", "--epsilon", epsilon, "--random-policy") == 0
    assert wn_rl("export", str(run), "--out", str(out)) == 0
    assert (out / "curve.png").stat().st_size > 1000
    agent, card = load_exported(out), (out / "README.md").read_text()
    assert "command" not in agent.run
    assert agent.run["config"]["steps"] == 1000
    assert str(tmp_path) not in card + (out / "config.json").read_text()
    assert card.count(f"| {agent.name} | nature |") == 2
    assert card.count("| random policy | nature | 1 | 4 |") == 1
    assert wn_rl("export", str(run), "--out", str(tmp_path / "latest"), "--network", "latest", "--no-onnx") == 0
    assert load_exported(tmp_path / "latest").name == "latest network, step 1,000"


def row(policy: str, mean: float, **changes: Any) -> dict[str, Any]:
    """A line of evaluations.jsonl."""
    values = {"policy": policy, "protocol": "nature", "epsilon": 0.05, "returns": [mean] * 3}
    return {**values, "return_mean": mean, "return_std": 3.25, **changes}


def card_of(agent: Agent, folder: Path, *lines: Any) -> ModelCard:
    """The model card of an agent of a run with these evaluations."""
    folder.mkdir()
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "evaluations.jsonl").write_text("\n".join(texts))
    export(agent, folder / "agent", run_dir=folder, onnx=False)
    return ModelCard((folder / "agent" / "README.md").read_text())


def test_the_card_is_what_the_hub_reads(tmp_path: Path) -> None:
    agent = small_agent(run={"config": to_json(CONFIGS["minatar"])})
    rows = [row(agent.name, 12.5), row("random policy", 1, epsilon=1.0, protocol="epoch")]
    card = card_of(agent, tmp_path / "run", *rows)
    assert (card.data.to_dict()["library_name"], card.data.license) == ("wn_rl", "mit")
    assert {"reinforcement-learning", "minatar", "seaquest", "weight_norm"} <= set(card.data.tags)
    (result,) = card.data.eval_results  # the random policy is not the model's
    assert (result.metric_type, result.metric_value) == ("mean_reward", "12.50 +/- 3.25")
    assert result.dataset_name == "minatar/seaquest"
    assert "3 episodes, nature protocol, epsilon 0.05" in result.metric_name
    assert "| a small network | nature | 0.05 | 3 | 12.50 | 3.25 |" in card.text
    for words in (
        "0 LEFT, 1 RIGHT",
        "episodes of at most 18,000 frames",
        "The epoch protocol",
        "The licence is MIT",
    ):
        assert words in card.text
    card = card_of(agent, tmp_path / "not evaluated")
    assert card.data.eval_results is None
    assert "The agent was not evaluated after training" in card.text


def test_scores_are_of_the_most_episodes_of_this_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = small_agent()
    rows = [row(agent.name, 1), row("latest network, step 9", 7), row("random policy", 0.5, epsilon=1)]
    rows += [row(agent.name, 2), row(agent.name, 5, returns=[5.0]), row(agent.name, 3, protocol="epoch")]
    card = card_of(agent, tmp_path / "run", '{"policy": "ran', "[]", '{"policy": "random policy"}', *rows)
    lines = [line for line in card.text.splitlines() if line.startswith(("| a small", "| random"))]
    shown = [" ".join(line.split(" | ")[1:5]) for line in lines]
    assert shown == ["nature 0.05 3 2.00", "nature 1 3 0.50", "epoch 0.05 3 3.00"]
    assert capsys.readouterr().err.count("is damaged and left out") == 3


def test_the_example_runs(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "export_sb3.py"
    command = [sys.executable, "-W", "error", example, "300"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "tensor([[" in done.stdout
    assert load_exported(Path("breakout_agent")).actions == ("NOOP", "LEFT", "RIGHT")


def test_an_exported_agent_plays_and_is_evaluated_by_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(minatar("breakout"), environment=EnvironmentConfig(max_episode_frames=60))
    make_run(tmp_path / "run", config)
    folder = tmp_path / "agent"
    assert wn_rl("export", str(tmp_path / "run"), "--out", str(folder), "--no-onnx") == 0
    results = []
    for place in (tmp_path / "run", folder):
        capsys.readouterr()
        assert wn_rl("evaluate", str(place), "--episodes", "2") == 0
        results.append(capsys.readouterr().out)
        assert wn_rl("play", str(place), "--video", str(tmp_path / f"{place.name}.mp4")) == 0
    assert results[0] == results[1]  # the same network, the same episodes
    assert (tmp_path / "agent.mp4").read_bytes() == (tmp_path / "run.mp4").read_bytes()
    for command in ("play", "evaluate"):
        assert wn_rl(command, str(folder), "--network", "latest") == 2
        assert "which has one network" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({}, "does not say which game it plays"),
        ({"config": []}, "the saved config does not fit this version"),
        ({"config": {**to_json(minatar("breakout")), "steps": "many"}}, "--steps must be a whole number"),
        ({"config": to_json(vectors("stranger:Evil-v0"))}, "if you trust it, use wn-rl --import stranger ..."),
    ],
)
def test_an_agent_whose_game_is_not_known_does_not_play_and_imports_nothing(
    run: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stranger.py").write_text("from pathlib import Path\nPath('executed').touch()\n")
    export(small_agent(run=run), tmp_path / "agent", onnx=False)
    for command in ("play", "evaluate"):
        assert wn_rl(command, str(tmp_path / "agent")) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "executed").exists()
