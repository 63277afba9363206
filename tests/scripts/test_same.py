"""What scripts/same.py finds between the folders of two runs, made without training."""

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

SCRIPT: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "same.py"))
STEP = Path("checkpoints/step_000000000200")
ROWS = Path("checkpoints/replay/rows_000000000000.safetensors")


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """A run of two rows of metrics and one checkpoint."""
    run = tmp_path / "one"
    write(run / "config.json", {"config": {"seed": 1}, "versions": {"torch": "2"}})
    write(run / "status.json", {"status": "finished", "step": 200, "message": "in one"})
    rows = [{"step": step, "loss": 0.5 / step, "seconds": 0.1, "frames_per_second": 10.0} for step in (100, 200)]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    learner = {"online": {"dense.v": {"$tensor": "0"}}}
    state = {"experiment": {"num_steps": 200, "learner": learner}, "monitor": {"seconds": 1.5}}
    write(run / STEP / "state.json", state)
    write(run / STEP / "manifest.json", {"step": 200, "files": {"state.json": "ab"}, "sha256": "cd"})
    save_file({"0": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)}, run / STEP / "tensors.safetensors")
    (run / ROWS).parent.mkdir()
    save_file({"reward": np.zeros((4, 1), np.float32)}, run / ROWS)
    save_file({"dense.v": np.ones(3, np.float32)}, run / "best_network.safetensors", {"step": "100"})
    return run


@pytest.fixture
def other(one: Path) -> Path:
    """The same run again."""
    return Path(shutil.copytree(one, one.with_name("other")))


def found(one: Path, other: Path) -> dict[str, str]:
    return dict(SCRIPT["compare"](SCRIPT["read_run"](one), SCRIPT["read_run"](other)))


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def flip(path: Path, name: str, place: int) -> None:
    """Flip the lowest bit of one element."""
    tensors = load_file(path)
    tensors[name].view(np.uint32).reshape(-1)[place] ^= 1
    save_file(tensors, path)


def test_a_weight_changed_by_one_bit_is_found_and_named(one: Path, other: Path) -> None:
    flip(other / STEP / "tensors.safetensors", "0", 4)
    assert list(found(one, other)) == ["state"]
    assert "experiment.learner.online.dense.v" in found(one, other)["state"]
    assert "1 of 6 elements, the first of them number 4" in found(one, other)["state"]


def test_zeros_of_either_sign_differ(one: Path, other: Path) -> None:
    save_file({"reward": -np.zeros((4, 1), np.float32)}, other / ROWS)
    assert list(found(one, other)) == ["replay"]


def test_a_changed_metric_is_found_with_its_step(one: Path, other: Path) -> None:
    change(other / "metrics.jsonl", "0.005", "0.0050000000000000001e0")  # the same number in other words
    assert found(one, other) == {}
    change(other / "metrics.jsonl", "0.0025", "0.0025000000000000005")
    assert list(found(one, other)) == ["metrics"]
    assert "line 2, step 200: loss: 0.0025, not 0.0025000000000000005" in found(one, other)["metrics"]


def test_a_missing_row_is_found(one: Path, other: Path) -> None:
    rows = (other / "metrics.jsonl").read_text().splitlines(keepends=True)
    (other / "metrics.jsonl").write_text(rows[0])
    assert "line 2, step 200: step: 200, not missing" in found(one, other)["metrics"]
    assert "line 2, step 200: step: missing, not 200" in found(other, one)["metrics"]


def test_times_versions_and_messages_are_ignored(one: Path, other: Path) -> None:
    change(other / "metrics.jsonl", '"seconds": 0.1', '"seconds": 9')
    change(other / "metrics.jsonl", '"frames_per_second": 10.0', '"frames_per_second": 8')
    change(other / STEP / "state.json", "1.5", "2.5")
    change(other / STEP / "manifest.json", "ab", "ef")
    change(other / "status.json", "in one", "in other")
    change(other / "config.json", '"torch": "2"', '"torch": "3"')
    assert found(one, other) == {}


def test_a_setting_may_be_new_but_not_another(one: Path, other: Path) -> None:
    change(other / "config.json", '"seed": 1', '"seed": 1, "new": 0')
    assert found(other, one) == {}
    assert list(found(one, other)) == ["rest"]


def test_another_shape_or_file_is_found(one: Path, other: Path) -> None:
    save_file({"dense.v": np.ones((3, 1), np.float32)}, other / "best_network.safetensors", {"step": "100"})
    assert "dense.v: ('F32', (3,)), not ('F32', (3, 1))" in found(one, other)["rest"]
    shutil.copy(one / "best_network.safetensors", other)
    (other / "video.mp4").write_bytes(b"1")
    assert "video.mp4" in found(one, other)["rest"]


def test_a_run_without_a_replay_is_not_taken_for_equal(one: Path, other: Path) -> None:
    for run in (one, other):
        (run / ROWS).unlink()
    assert found(one, other) == {"replay": "there is nothing to compare of replay"}


def test_a_run_that_is_not_there_is_not_taken_for_equal(one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not SCRIPT["print_row"]("killed", one, one.with_name("none"))
    assert "cannot be compared" in capsys.readouterr().out
