"""The model card of an exported agent: README.md with the metadata of the Hugging Face hub."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from wn_rl.errors import counted, say
from wn_rl.export.agent import Agent

CARD, CURVE, ONNX = "README.md", "curve.png", "model.onnx"
RANDOM_POLICY = "random policy"  # as evaluations.jsonl calls it
PROTOCOLS = {
    "nature": "whole games of at most 18,000 frames, or of the limit in the settings where that is less",
    "epoch": "a number of steps, and the games completed in them",
}


@dataclass(frozen=True)
class Score:
    """Raw returns of a policy's games: their number, mean and standard deviation, and how they were played."""

    policy: str
    protocol: str
    epsilon: float
    games: int
    mean: float
    std: float


def scores_of_run(run: Path, network: str) -> list[Score]:
    """What `wn-rl evaluate` found of one network of a run (by its name), and of the random policy.

    Of each protocol and epsilon the one with most games, of equals the newest. Lines of evaluations.jsonl that
    were cut off are left out, and said to be.
    """
    file = run / "evaluations.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    largest: dict[tuple[str, str, float], Score] = {}
    for number, line in enumerate(lines, start=1):
        try:
            score = _score_in(json.loads(line))
        except (ValueError, KeyError, TypeError):
            say(f"warning: line {number} of {file} is damaged and left out")
            continue
        key = score.policy, score.protocol, score.epsilon
        if score.policy in (network, RANDOM_POLICY) and (key not in largest or score.games >= largest[key].games):
            largest[key] = score
    return list(largest.values())


def _score_in(row: dict[str, Any]) -> Score:
    return Score(
        policy=row["policy"],
        protocol=row["protocol"],
        epsilon=float(row["epsilon"]),
        games=len(row["returns"]),
        mean=float(row["return_mean"]),
        std=float(row["return_std"]),
    )


def card_text(agent: Agent, scores: Sequence[Score], files: Sequence[str]) -> str:
    """The whole README.md. files: the names of all files of the folder, which it describes."""
    parts = [
        _metadata(agent, scores, files),
        f"# {_title(agent)}\n\n{_summary(agent)}",
        "## Scores\n\n" + _score_table(scores),
        *(["## Training\n\n" + _training(agent, CURVE in files)] if agent.run else []),
        "## What it sees and does\n\n" + _interface(agent),
        "## Use\n\n" + _use(ONNX in files),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(agent: Agent, scores: Sequence[Score], files: Sequence[str]) -> str:
    """The block that the hub reads, in YAML; a JSON value is a YAML value too."""
    config = agent.run.get("config", {})
    tags = ["reinforcement-learning", "deep-reinforcement-learning", "dqn", "weight-normalization"]
    tags += [config[name] for name in ("suite", "game", "parameterization") if name in config]
    tags += ["onnx"] if ONNX in files else []
    fields: dict[str, Any] = {"library_name": "wn_rl", "pipeline_tag": "reinforcement-learning", "tags": tags}
    tests = [score for score in scores if score.policy != RANDOM_POLICY]
    if config and tests:
        fields["model-index"] = [{"name": _title(agent), "results": [_result(config, test) for test in tests]}]
    lines = (f"{name}: {json.dumps(value)}" for name, value in fields.items())
    return "\n".join(["---", *lines, "---"])


def _result(config: dict[str, Any], score: Score) -> dict[str, Any]:
    """One entry of the hub's model index."""
    game, games = f"{config['suite']}/{config['game']}", counted(score.games, "game")
    metric = {
        "type": "mean_reward",
        "value": f"{score.mean:.2f} +/- {score.std:.2f}",
        "name": f"mean raw return of {games}, {score.protocol} protocol, epsilon {score.epsilon:g}",
        "verified": False,
    }
    return {
        "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
        "dataset": {"name": game, "type": game},
        "metrics": [metric],
    }


def _title(agent: Agent) -> str:
    config = agent.run.get("config")
    if config is None:
        return "Deep Q-Network"
    return f"Deep Q-Network for {config['game']} ({config['suite']}), {config['parameterization']} layers"


def _summary(agent: Agent) -> str:
    dqn = "[Mnih et al. 2015](https://www.nature.com/articles/nature14236)"
    weight_norm = "[Salimans & Kingma 2016](https://arxiv.org/abs/1602.07868)"
    return (
        f"A Deep Q-Network ({dqn}) made with wn_rl, which can normalize the weights of the layers "
        f"({weight_norm}). Here is the {agent.name}, with every layer folded into plain weights and biases."
    )


def _score_table(scores: Sequence[Score]) -> str:
    if not scores:
        return "Not tested after training: `wn-rl evaluate RUN` before `wn-rl export RUN` puts its scores here."
    lines = [
        "| policy | protocol | epsilon | games | mean raw return | standard deviation |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {s.policy} | {s.protocol} | {s.epsilon:g} | {s.games} | {s.mean:.2f} | {s.std:.2f} |" for s in scores
    ]
    used = {score.protocol for score in scores}
    legend = "; ".join(f"{name}: {meaning}" for name, meaning in PROTOCOLS.items() if name in used)
    return (
        "\n".join(lines)
        + f"\n\n{legend}. Rewards are not clipped, and a lost life ends nothing. One training run."
    )


def _training(agent: Agent, has_curve: bool) -> str:
    settings = json.dumps(agent.run, indent=2)
    picture = [f"![Raw return of a game against agent steps]({CURVE})"] if has_curve else []
    details = f"<details><summary>Every setting, and versions</summary>\n\n```json\n{settings}\n```\n\n</details>"
    return "\n\n".join([*picture, details])


def _interface(agent: Agent) -> str:
    shape = agent.preprocess.stacked_shape
    frames = (
        "the newest frame" if shape[0] == 1 else f"the last {shape[0]} frames, zeros before the first of a game"
    )
    actions = ", ".join(f"{number} {meaning}" for number, meaning in enumerate(agent.actions))
    return (
        f"Observations `[batch, {', '.join(map(str, shape))}]`, {agent.dtype}, as the environment gives them: "
        f"{frames}. The scaling by {agent.preprocess.scale:.6g} is part of the network.\n\n"
        f"Action values `[batch, {len(agent.actions)}]`: {actions}."
    )


def _use(has_onnx: bool) -> str:
    standalone = (resources.files("wn_rl.export") / "standalone.py").read_text()
    parts = [
        "With wn_rl, from a folder or from the hub:",
        '```python\nfrom wn_rl.export import load_exported\n\nagent = load_exported("FOLDER")  # or "owner/name"\n'
        "q_values = agent.network(observations)\n```",
        "With torch and safetensors alone:",
        f"```python\n{standalone}```",
        "```python\nq_values = ExportedAgent(FOLDER).q_values(observations)\n```",
    ]
    if has_onnx:
        parts += [
            "With onnxruntime alone, observations being a numpy array:",
            f'```python\nimport onnxruntime\n\nsession = onnxruntime.InferenceSession("{ONNX}")\n'
            '(q_values,) = session.run(None, {"observations": observations})\n```',
        ]
    return "\n\n".join(parts)
