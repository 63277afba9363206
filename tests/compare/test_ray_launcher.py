"""Runs as tasks of real Ray clusters on this machine, whose workers, nodes and drivers are killed."""

import importlib.util
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from run_tools import QUICK, rows_of, start, status_of, timeless, wait_for, wn_rl

from wn_rl.compare.launch import num_cores
from wn_rl.compare.ray_launcher import RayLauncher
from wn_rl.errors import UserError

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")

NAME = "minatar-breakout-weight_norm-lr0.0003-seed1"
GRID = ["--games", "breakout", "--arms", "weight_norm", "--seeds", "1", *QUICK, "--steps", "3000"]


def start_grid(*arguments: str | Path) -> "subprocess.Popen[str]":
    return start("compare", *GRID, *arguments)


def parent_of(pid: int) -> int:
    """The parent of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def wait_for_a_checkpoint(run: Path, process: "subprocess.Popen[str]") -> int:
    """Until the run has one; the process that trains."""
    wait_for(lambda: list(run.glob("checkpoints/step_*")), process)
    return int((run / ".lock").read_text())


def assert_resumed_to_the_end(run: Path, undisturbed: Path) -> None:
    log = run.parents[1] / "logs" / f"{NAME}.log"
    assert "resuming at step" in log.read_text()
    assert status_of(run)["status"] == "finished"
    assert timeless(rows_of(run)) == timeless(rows_of(undisturbed))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run by the local launcher."""
    out = tmp_path_factory.mktemp("undisturbed")
    assert wn_rl("compare", *GRID, "--only", NAME, "--out", str(out)) == 0
    return out / "runs" / NAME


@needs_ray
def test_a_cluster_that_is_not_there_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert wn_rl("compare", *GRID, "--launcher", "ray", "--out", str(out)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "no Ray cluster could be reached at RAY_ADDRESS 127.0.0.1:1" in line
    assert not out.exists()


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"wn-rl\[ray\]"):
        RayLauncher("cpu", threads=1, gpu_share=None)


class PlayRay:
    """Of Ray, what says what a task asks for."""

    def __init__(self, **resources: float) -> None:
        self.resources, self.asked = resources, {}  # type: ignore[var-annotated]
        self.is_shut = False

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def remote(self, function: Callable[..., Any]) -> "PlayRay":
        return self

    def options(self, **asked: float) -> "PlayRay":
        self.asked = asked
        return self

    def shutdown(self) -> None:
        self.is_shut = True


@pytest.mark.parametrize(
    ("device", "share", "gpus", "asks", "at_once"),
    [
        ("cpu", None, 4.0, {"num_cpus": 2, "num_gpus": 0.0}, 8),
        ("auto", None, 0.0, {"num_cpus": 2, "num_gpus": 0.0}, 8),
        ("auto", None, 4.0, {"num_cpus": 2, "num_gpus": 1.0}, 4),
        ("cuda", 0.25, 1.0, {"num_cpus": 2, "num_gpus": 0.25}, 4),
    ],
)
def test_a_task_asks_for_its_cores_and_its_share_of_a_gpu(
    device: str,
    share: float | None,
    gpus: float,
    asks: dict[str, float],
    at_once: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = PlayRay(CPU=16.0, GPU=gpus)
    monkeypatch.setattr("wn_rl.compare.ray_launcher._connect", lambda: cluster)
    launcher = RayLauncher(device, threads=2, gpu_share=share)
    assert cluster.asked == {**asks, "max_retries": 0}  # the comparison counts retries
    assert launcher.at_once == at_once


@pytest.mark.parametrize(("device", "share"), [("cuda", None), ("auto", 0.5)])
def test_a_gpu_that_the_cluster_has_not_is_one_clear_line(
    device: str, share: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = PlayRay(CPU=16.0)
    monkeypatch.setattr("wn_rl.compare.ray_launcher._connect", lambda: cluster)
    with pytest.raises(UserError, match="the Ray cluster has no GPU"):
        RayLauncher(device, threads=1, gpu_share=share)
    assert cluster.is_shut


@needs_ray
@pytest.mark.slow
def test_a_run_whose_worker_is_killed_goes_on_in_another(undisturbed: Path, tmp_path: Path) -> None:
    process = start_grid("--launcher", "ray", "--only", NAME, "--out", tmp_path / "out")
    run = tmp_path / "out" / "runs" / NAME
    trainer = wait_for_a_checkpoint(run, process)
    os.kill(parent_of(trainer), signal.SIGKILL)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, out + err
    assert_resumed_to_the_end(run, undisturbed)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head that computes nothing, and two nodes that can."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    made.workers = [made.add_node(num_cpus=1) for _ in range(2)]
    yield made
    made.shutdown()


@needs_ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_run_whose_machine_is_lost_goes_on_on_another(
    undisturbed: Path, tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    process = start_grid("--launcher", "ray", "--only", NAME, "--out", tmp_path / "out")
    run = tmp_path / "out" / "runs" / NAME
    trainer = wait_for_a_checkpoint(run, process)
    raylet = parent_of(parent_of(trainer))
    (node,) = [node for node in cluster.workers if node.all_processes["raylet"][0].process.pid == raylet]
    cluster.remove_node(node, allow_graceful=False)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, out + err
    assert_resumed_to_the_end(run, undisturbed)


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_comparison_that_is_stopped_on_ray_goes_on_where_it_was(
    number: int, code: int, undisturbed: Path, tmp_path: Path
) -> None:
    """With more seeds than there is room for: tasks that have not begun are cancelled too."""
    process = start_grid("--launcher", "ray", "--out", tmp_path / "out", "--seeds", str(num_cores() + 1))
    run = tmp_path / "out" / "runs" / NAME
    wait_for_a_checkpoint(run, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, out + err
    if number == signal.SIGINT:
        assert status_of(run)["status"] in ("interrupted", "finished")
        assert re.search(r"\d+ (waiting|interrupted)", out.splitlines()[-1])
    process = start_grid("--launcher", "ray", "--only", NAME, "--out", tmp_path / "out")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, out + err
    assert_resumed_to_the_end(run, undisturbed)
