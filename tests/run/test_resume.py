"""Runs in child processes that are stopped at any instant, and continue as if nothing had happened."""

import json
import random
import signal
import subprocess
from pathlib import Path

import pytest
from resume_tools import (
    assert_same_run,
    command,
    finish,
    num_rows,
    start_and_stop,
)

SCHEDULE = [
    "--learning.epsilon-steps", "300", "--learning.target-period", "80", "--network.init-states", "32",
    "--evaluation.held-out-states", "16", "--evaluation.video-period", "0", "--keep-replay",
    "--track", "jsonl", "--torch-threads", "1",
]  # fmt: skip
MINATAR = [
    "breakout", "--suite", "minatar", "--steps", "3000", "--log-period", "250", "--checkpoint-period", "300",
    "--learning.replay-start", "200", "--learning.replay-capacity", "1500", "--evaluation.period", "700",
    "--evaluation.steps", "300", *SCHEDULE,
]  # fmt: skip
ATARI = [
    "--preset", "laptop", "--device", "cpu", "--steps", "560", "--log-period", "80", "--checkpoint-period", "64",
    "--learning.replay-start", "80", "--learning.replay-capacity", "256", "--learning.batch-size", "8",
    "--evaluation.period", "240", "--evaluation.steps", "60", "--evaluation.num-envs", "1",
    "--environment.max-episode-frames", "400", *SCHEDULE,
]  # fmt: skip
RUNS = {
    "minatar": MINATAR,
    "minatar_bn": [*MINATAR, "--parameterization", "weight_norm_mean_only_bn", "--num-envs", "1"],
    "atari_1_lane": ["breakout", *ATARI, "--num-envs", "1"],
    "atari_3_lanes": ["seaquest", *ATARI, "--num-envs", "3"],
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished runs by name, made when first asked for."""
    folder = tmp_path_factory.mktemp("undisturbed")

    class Made(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            self[name] = folder / name
            finish("train", *RUNS[name], "--run-dir", self[name])
            return self[name]

    return Made()


@pytest.mark.parametrize(
    "name", ["minatar_bn", "atari_3_lanes", *(pytest.param(name, marks=pytest.mark.slow) for name in RUNS)]
)
def test_a_run_killed_at_random_instants_equals_the_undisturbed_one(
    name: str, undisturbed: dict[str, Path], tmp_path: Path
) -> None:
    whole, victim = undisturbed[name], tmp_path / "victim"
    moments = random.Random()
    rows, delay = moments.randrange(0, 4), moments.uniform(0, 0.5)
    print(f"killed after {rows} rows and {delay:.2f} s")
    assert start_and_stop(["train", *RUNS[name], "--run-dir", victim], signal.SIGKILL, victim, rows, delay) == -9
    start_and_stop(["resume", victim], signal.SIGKILL, victim, num_rows(victim) + 1, moments.uniform(0, 0.2))
    finish("resume", victim)
    assert_same_run(whole, victim)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_resume(
    number: int, code: int, undisturbed: dict[str, Path], tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    assert start_and_stop(["train", *MINATAR, "--run-dir", victim], number, victim, 3) == code
    status = json.loads((victim / "status.json").read_text())
    assert status["status"] == "interrupted"
    assert f"wn-rl resume {victim}" in status["message"]
    assert 0 < status["step"] < 3000
    assert max(victim.glob("checkpoints/step_*")).name == f"step_{status['step']:012d}"
    finish("resume", victim)
    assert_same_run(undisturbed["minatar"], victim)


def test_the_same_seed_gives_the_same_run_for_any_number_of_processes(
    undisturbed: dict[str, Path], tmp_path: Path
) -> None:
    again = tmp_path / "again"
    finish("train", *RUNS["atari_3_lanes"], "--environment.processes", "1", "--run-dir", again)
    assert_same_run(undisturbed["atari_3_lanes"], again)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    undisturbed: dict[str, Path], tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    assert start_and_stop(["train", *MINATAR, "--run-dir", victim], signal.SIGINT, victim, 5) == 130
    newest = max(victim.glob("checkpoints/step_*"))
    tensors = newest / "tensors.safetensors"
    content = bytearray(tensors.read_bytes())
    content[len(content) // 2] ^= 1
    tensors.write_bytes(content)
    assert newest.name in finish("resume", victim)
    assert_same_run(undisturbed["minatar"], victim)


def test_two_runs_cannot_share_a_folder(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    process = subprocess.Popen(
        command("train", *MINATAR, "--steps", "1000000", "--run-dir", victim),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("folder")
        second = subprocess.run(command("resume", victim), capture_output=True, text=True, timeout=300)
        assert second.returncode == 2
        assert f"process {process.pid}" in second.stderr
        assert len(second.stderr.strip().splitlines()) == 1
    finally:
        process.kill()
        process.communicate()


def test_a_checkpoint_of_another_run_is_refused_on_its_manifest(
    undisturbed: dict[str, Path], tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    assert start_and_stop(["train", *MINATAR, "--seed", "9", "--run-dir", victim], signal.SIGINT, victim, 2) == 130
    stranger = undisturbed["atari_1_lane"]
    subprocess.run(["rm", "-r", str(victim / "checkpoints")], check=True)
    subprocess.run(["cp", "-r", str(stranger / "checkpoints"), str(victim / "checkpoints")], check=True)
    done = subprocess.run(command("resume", victim), capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "suite is 'atari', not 'minatar'" in done.stderr.strip().splitlines()[-1]
