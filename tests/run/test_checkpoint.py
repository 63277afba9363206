import ast
import errno
import json
import math
import os
import pickle
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

import wn_rl.run.segments
from wn_rl.run import checkpoint
from wn_rl.run.checkpoint import CheckpointError, CheckpointStore
from wn_rl.run.tensor_files import (
    StateError,
    difference_of_identity,
    pack,
    read_network_file,
    unpack,
    write_network_file,
)

ROOT = Path(__file__).parents[2]
IDENTITY = {"suite": "minatar", "game": "breakout", "network.stack": 4}


class Ring:
    """A replay of numbered rows: row t holds t everywhere."""

    def __init__(self, ring_rows: int = 10) -> None:
        self.ring_rows = ring_rows
        self.num_rows = 0
        self.frames = torch.zeros(ring_rows, 2, 3, dtype=torch.uint8)
        self.rewards = torch.zeros(ring_rows, 2)
        self.reads: list[tuple[int, int]] = []

    @property
    def oldest_row(self) -> int:
        return max(0, self.num_rows - self.ring_rows)

    def add(self, num_rows: int) -> None:
        for _ in range(num_rows):
            self.frames[self.num_rows % self.ring_rows] = self.num_rows % 256
            self.rewards[self.num_rows % self.ring_rows] = self.num_rows
            self.num_rows += 1

    def read_rows(self, start: int, stop: int) -> dict[str, Tensor]:
        assert self.oldest_row <= start <= stop <= self.num_rows
        self.reads.append((start, stop))
        slots = torch.arange(start, stop) % self.ring_rows
        return {"frame": self.frames[slots], "reward": self.rewards[slots]}

    def write_rows(self, start: int, columns: dict[str, Tensor]) -> None:
        assert self.num_rows in (0, start), "rows come back in order"
        slots = torch.arange(start, start + len(columns["reward"])) % self.ring_rows
        self.frames[slots], self.rewards[slots] = columns["frame"], columns["reward"]
        self.num_rows = start + len(columns["reward"])

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Ring)
        ours, theirs = (
            ring.read_rows(ring.oldest_row, ring.num_rows) if ring.num_rows else {} for ring in (self, other)
        )
        return self.num_rows == other.num_rows and all(torch.equal(ours[name], theirs[name]) for name in ours)


def state_at(step: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(step)
    return {"step": step, "weights": torch.randn(7, generator=generator), "log": [step, None, "x"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the checkpoints of the test go."""
    return tmp_path / "run" / "checkpoints"


def save_at(store: CheckpointStore, ring: Ring, *all_rows: int) -> None:
    """For each number, add rows until the ring had this number in all, and save; the step is that number."""
    for rows in all_rows:
        ring.add(rows - ring.num_rows)
        store.save(rows, state_at(rows), ring)


def saved(folder: Path, *all_rows: int, ring_rows: int = 10) -> tuple[CheckpointStore, Ring]:
    """A new run that has saved at these numbers of rows."""
    store, ring = CheckpointStore(folder, IDENTITY), Ring(ring_rows)
    save_at(store, ring, *all_rows)
    return store, ring


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def reports_nothing(line: str) -> None:
    raise AssertionError(f"unexpected: {line}")


def ignore(line: str) -> None:
    pass


def load(folder: Path, report: Callable[[str], None] = reports_nothing) -> tuple[int, Any, Ring]:
    """What a new process finds."""
    ring = Ring()
    found = CheckpointStore(folder, IDENTITY).load(ring, report)
    assert found is not None
    return *found, ring


def assert_whole(found: tuple[int, Any, Ring], expected_step: int | None = None) -> int:
    """The checkpoint of that step, or of its own, its state and its replay, all of it. Returns the step."""
    step, state, ring = found
    assert expected_step in (None, step)
    assert same(state, state_at(step))
    expected = Ring()
    expected.add(step)
    assert ring == expected
    return step


def same(left: Any, right: Any) -> bool:
    """Equal in type and in every bit."""
    if isinstance(left, float) and type(left) is type(right) is float:
        return struct.pack("d", left) == struct.pack("d", right)
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return (left.dtype, left.shape) == (right.dtype, right.shape) and bits(left) == bits(right)
    if isinstance(left, np.ndarray | np.generic):
        return (
            type(left) is type(right)
            and (left.dtype, left.shape) == (right.dtype, right.shape)
            and (left.tobytes() == right.tobytes())
        )
    if isinstance(left, list):
        return isinstance(right, list) and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return (
            isinstance(right, dict)
            and list(left) == list(right)
            and all(same(left[key], right[key]) for key in left)
        )
    return type(left) is type(right) and left == right


def bits(tensor: Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


# State trees.

DTYPES = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
ARRAYS = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, SHAPES))
TENSORS = st.one_of(
    ARRAYS.map(lambda array: torch.from_numpy(array.copy())),
    hnp.arrays("u2", SHAPES).map(lambda array: torch.from_numpy(array.copy()).view(torch.bfloat16)),
)
SCALARS = ARRAYS.filter(lambda array: array.size > 0).map(lambda array: array.flat[0])
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(),
    ARRAYS,
    TENSORS,
    SCALARS,
)
KEYS = st.one_of(st.text(), st.sampled_from(["$tensor", "$dict", "$int", "__metadata__"]))
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TREES)
def test_a_state_comes_back_bit_for_bit(state: Any) -> None:
    assert same(unpack(pack(state)), state)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        struct.unpack("d", struct.pack("Q", 0xFFF8_0000_0000_0001))[0],  # a negative NaN with a payload
        math.inf,
        -math.inf,
        -0.0,
        5e-324,
        10**5000,  # more digits than Python parses
        -(2**63),
        "\ud800",
        np.zeros((0, 3), np.float32),
        np.array(3.5),
        np.arange(6)[::-2],
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.float32(1.5),
        np.bool_(True),
        torch.tensor(True),
        torch.arange(6).reshape(2, 3).t(),
        torch.tensor([math.nan, -0.0], dtype=torch.bfloat16),
        {},
        [],
    ],
    ids=lambda value: type(value).__name__,
)
def test_awkward_values_come_back(value: Any) -> None:
    restored = unpack(pack({"value": value}))["value"]
    if isinstance(value, Tensor):
        value = value.contiguous()
    assert same(restored, value)


def test_tuples_come_back_as_lists_and_shared_memory_as_copies() -> None:
    whole = torch.arange(4.0)
    restored = unpack(pack({"pair": (1, 2), "views": [whole, whole[1:]], "weight": torch.nn.Parameter(whole)}))
    assert restored["pair"] == [1, 2]
    assert restored["views"][1].tolist() == [1, 2, 3]
    restored["views"][0].zero_()
    assert restored["views"][1].tolist() == [1, 2, 3]
    assert type(restored["weight"]) is Tensor


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": [1, object()]}, "state['a'][1]: object"),
        ({1: 2}, "state: a dict's keys"),
        ({"a": np.array([object()])}, "state['a']: an array of object"),
        ({"a": np.array("text")}, "state['a']: an array of <U4"),
        (torch.zeros(2, 2).to_sparse(), "state: a torch.sparse_coo tensor"),
        (torch.zeros(2, dtype=torch.complex64), "state: a torch.strided tensor of torch.complex64"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_not_plain_data_is_refused_with_its_place(value: Any, place: str) -> None:
    with pytest.raises(StateError) as error:
        pack(value)
    assert place in str(error.value)


# Saving and loading.


@pytest.mark.parametrize("rows", [0, 7])
def test_a_checkpoint_restores_step_state_and_replay(folder: Path, rows: int) -> None:
    assert CheckpointStore(folder, IDENTITY).load(Ring(), reports_nothing) is None
    saved(folder, rows)
    assert_whole(load(folder), rows)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 14), min_size=1, max_size=8), st.integers(1, 60), st.data())
def test_any_sequence_of_saves_and_resumes_keeps_the_last_two_whole(
    tmp_path_factory: pytest.TempPathFactory, additions: list[int], segment_bytes: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wn_rl.run.segments, "SEGMENT_BYTES", segment_bytes)
        store, ring = CheckpointStore(folder, IDENTITY), Ring()
        for addition in additions:
            save_at(store, ring, ring.num_rows + addition)
            if data.draw(st.booleans(), label="resume"):
                store, ring = CheckpointStore(folder, IDENTITY), Ring()
                assert store.load(ring, reports_nothing) is not None
            kept = sorted(folder.glob("step_*"))
            assert len(kept) <= 2
            listed = {
                segment["name"]
                for checkpoint in kept
                for segment in json.loads((checkpoint / "manifest.json").read_text())["segments"]
            }
            assert names_in(folder / "replay") == listed
            assert_whole(load(folder), ring.num_rows)
        if len(kept) == 2:
            shutil.rmtree(newest(folder))
            assert_whole(load(folder))


def newest(folder: Path) -> Path:
    """The folder of the last checkpoint; the second of a step ends in -1."""
    return max(folder.glob("step_*"), key=lambda path: (path.name[:17], path.stat().st_mtime_ns))


def test_a_save_writes_new_rows_only(folder: Path) -> None:
    store, ring = saved(folder, 90, ring_rows=100)
    first = {path.name: path.stat().st_mtime_ns for path in (folder / "replay").iterdir()}
    ring.reads.clear()
    save_at(store, ring, 95)
    assert all(start >= 90 for start, _ in ring.reads)
    files = {path.name: path.stat() for path in (folder / "replay").iterdir()}
    assert {name: files[name].st_mtime_ns for name in first} == first
    [new] = files.keys() - first.keys()
    assert files[new].st_size < 5 * 14 + 200  # five rows of 14 bytes, and a header
    store, ring = CheckpointStore(folder, IDENTITY), Ring(ring_rows=100)
    store.load(ring, reports_nothing)
    save_at(store, ring, 97)
    assert ring.reads == [(95, 96), (95, 97)]  # the first read asks how large a row is


def test_segments_are_no_larger_than_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wn_rl.run.segments, "SEGMENT_BYTES", 3 * 14 + 5)
    saved(folder, 8)
    assert names_in(folder / "replay") == {f"rows_{first:012d}.safetensors" for first in (0, 3, 6)}
    assert_whole(load(folder), 8)


def test_of_copies_of_a_step_the_last_saved_is_loaded(folder: Path) -> None:
    store, ring = saved(folder, 5)
    for number in range(1, 8):
        store.save(5, {"number": number}, ring)
        assert load(folder)[:2] == (5, {"number": number})


def test_saving_without_loading_first_is_refused(folder: Path) -> None:
    saved(folder, 5)
    with pytest.raises(CheckpointError, match="load one before"):
        saved(folder, 6)
    assert_whole(load(folder), 5)


@pytest.mark.parametrize("field", list(IDENTITY))
def test_a_checkpoint_of_another_run_is_refused_before_its_weights_are_read(folder: Path, field: str) -> None:
    saved(folder, 5)
    (newest(folder) / "tensors.safetensors").unlink()
    other = CheckpointStore(folder, {**IDENTITY, field: "other"})
    for use in (lambda: other.load(Ring(), reports_nothing), lambda: other.load_state(reports_nothing)):
        with pytest.raises(CheckpointError, match=f"{field} is .*, not 'other'"):
            use()


def test_a_dropped_replay_leaves_the_state(folder: Path) -> None:
    store, _ = saved(folder, 4, 8)
    store.drop_replay()
    store.drop_replay()
    assert names_in(folder) == {"step_000000000004", "step_000000000008"}
    assert not CheckpointStore(folder, IDENTITY).has_replay
    assert_has_no_replay(folder)


def assert_has_no_replay(folder: Path) -> None:
    """The state of step 8 is there, and the replay was dropped, not damaged."""
    again = CheckpointStore(folder, IDENTITY)
    found = again.load_state(reports_nothing)
    assert found is not None
    assert found[0] == 8
    assert same(found[1], state_at(8))
    with pytest.raises(CheckpointError, match="dropped its replay"):
        again.load(Ring(), reports_nothing)


# Faults.


class KilledError(BaseException):
    """The process ends here."""


OPERATIONS = ["open", "write", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir"]


def fail_at(patch: pytest.MonkeyPatch, number: int, fail: Callable[[], None]) -> list[str]:
    """Make the operation of that number fail, after half of it if it is a write. Returns the calls so far."""
    calls: list[str] = []

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            if len(calls) == number:
                if name == "write":
                    real(args[0], args[1][: len(args[1]) // 2])
                fail()
            return real(*args, **kwargs)

        return operation

    for name in OPERATIONS:
        patch.setattr(os, name, wrap(name, getattr(os, name)))
    return calls


def kill() -> None:
    raise KilledError


def fill_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def two_saved(folder: Path) -> Path:
    """Checkpoints at 6 and 9 rows, in a ring of 10: the next save drops a segment."""
    saved(folder, 3, 6, 9)
    return folder


def resumed(folder: Path) -> tuple[CheckpointStore, Ring]:
    store, ring = CheckpointStore(folder, IDENTITY), Ring()
    assert store.load(ring, ignore) is not None
    return store, ring


def test_killed_at_any_operation_the_old_or_the_new_one_loads(two_saved: Path, tmp_path: Path) -> None:
    seen = set()
    for number in range(1, 1000):
        folder = tmp_path / str(number) / "checkpoints"
        shutil.copytree(two_saved, folder)
        store, ring = resumed(folder)
        with pytest.MonkeyPatch.context() as patch:
            fail_at(patch, number, kill)
            try:
                save_at(store, ring, 14)
            except KilledError:
                pass
            else:
                break
        seen.add(assert_whole(load(folder)))
        store, ring = resumed(folder)  # and the run goes on
        save_at(store, ring, 20)
        assert_whole(load(folder), 20)
        assert not list(folder.glob(".*"))
    assert seen == {9, 14}
    assert number > 20


def test_killed_in_the_first_save_there_is_none_or_all_of_it(tmp_path: Path) -> None:
    for number in range(1, 1000):
        folder = tmp_path / str(number)
        with pytest.MonkeyPatch.context() as patch:
            fail_at(patch, number, kill)
            try:
                saved(folder, 5)
            except KilledError:
                pass
            else:
                break
        if CheckpointStore(folder, IDENTITY).load(Ring(), reports_nothing) is None:
            saved(folder, 5)
        assert_whole(load(folder), 5)


def test_a_full_disk_at_any_operation_leaves_the_old_ones_and_no_debris(two_saved: Path, tmp_path: Path) -> None:
    messages = set()
    refused = 0
    for number in range(1, 1000):
        folder = tmp_path / str(number) / "checkpoints"
        shutil.copytree(two_saved, folder)
        store, ring = resumed(folder)
        before = sorted(path.relative_to(folder) for path in folder.rglob("*"))
        with pytest.MonkeyPatch.context() as patch:
            calls = fail_at(patch, number, fill_disk)
            try:
                save_at(store, ring, 14)
            except CheckpointError as error:
                messages.add(str(error))
            else:
                if len(calls) < number:
                    break
                continue  # what could not be removed is no reason to fail
        assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before, calls
        assert_whole(load(folder), 9)
        save_at(store, ring, 16)  # the same process goes on
        assert_whole(load(folder), 16)
        refused += 1
    assert refused > 15
    assert all("step 14" in message and "No space left on device" in message for message in messages)


def test_a_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True
    ).returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        folder = disk / "checkpoints"
        store, ring = saved(folder, 9)
        with pytest.raises(CheckpointError, match="No space left"):
            store.save(12, {"weights": torch.zeros(100_000)}, ring)
        assert names_in(folder) == {"replay", "step_000000000009"}
        assert_whole(load(folder), 9)
        save_at(store, ring, 14)
        assert_whole(load(folder), 14)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_after_damage_the_run_goes_on_from_the_one_before(two_saved: Path) -> None:
    (newest(two_saved) / "state.json").write_text("{}")
    store, ring = resumed(two_saved)
    assert ring.num_rows == 6
    for rows in (8, 9, 13):  # the first has fewer rows than the damaged one, the second as many
        save_at(store, ring, rows)
        assert_whole(load(two_saved), rows)


def test_a_manifest_of_another_format_is_not_used(two_saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wn_rl.run.checkpoint.FORMAT", 2)
    lines: list[str] = []
    with pytest.raises(CheckpointError):
        load(two_saved, lines.append)
    assert "it has format 1, and this version of wn-rl reads 2" in lines[0]


class Bomb:
    """Runs a command if it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch exploded",)


def test_a_pickle_with_a_good_digest_is_refused_too() -> None:
    for name in ("state.json", "tensors.safetensors"):
        with pytest.raises(StateError, match="not a saved state"):
            unpack({**pack({"a": torch.zeros(2)}), name: pickle.dumps(Bomb())})
    assert not Path("exploded").exists()


# The network file.


def test_a_network_comes_back_and_a_changed_bit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    tensors = {"v": torch.randn(3, 2), "g": torch.tensor(2.0, dtype=torch.bfloat16), "empty": torch.zeros(0)}
    write_network_file(path, tensors, {"step": "12"})
    restored, metadata = read_network_file(path)
    assert metadata == {"step": "12"}
    assert all(same(restored[name], tensors[name]) for name in tensors)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match="damaged"):
            read_network_file(path)
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="damaged"):
            read_network_file(path)


# Nothing in the repository unpickles.

SOURCES = [path for part in ("wn_rl", "agents", "envs", "scripts") for path in sorted((ROOT / part).rglob("*.py"))]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_unpickles(path: Path) -> None:
    assert unpickling_calls(path.read_text()) == []


def unpickling_calls(source: str) -> list[str]:
    """Calls that could run code from a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        module, _, function = name.rpartition(".")
        if (
            (module in ("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve") and function != "dumps")
            or function == "Unpickler"
            or (name == "torch.load" and options.get("weights_only") != "True")
            or options.get("weights_only", "True") != "True"
            or options.get("allow_pickle", "False") != "False"
        ):
            found.append(ast.unparse(node))
    return found


def test_the_search_for_unpickling_finds_it() -> None:
    for bad in (
        "pickle.load(f)",
        "pickle.loads(b)",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "load(p, weights_only=False)",
        "np.load(p, allow_pickle=True)",
        "pickle.Unpickler(f).load()",
    ):
        assert unpickling_calls(bad), bad
    assert not unpickling_calls("torch.load(p, weights_only=True); np.load(p); json.load(f)")


def test_rows_that_left_the_ring_leave_the_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but those of a segment or a checkpoint that still has newer ones."""
    monkeypatch.setattr(wn_rl.run.segments, "SEGMENT_BYTES", 1)  # a row
    store, ring = saved(folder)
    for rows in range(5, 60, 5):
        save_at(store, ring, rows)
        expected = {f"rows_{row:012d}.safetensors" for row in range(max(0, rows - 15), rows)}
        assert names_in(folder / "replay") == expected


def test_copies_of_a_step_are_ordered_by_their_numbers(folder: Path) -> None:
    names = ["step_000000000005", *(f"step_000000000005-{number}" for number in range(1, 12)), "step_000000000006"]
    for name in names[::2] + names[1::2]:
        (folder / name).mkdir(parents=True)
    assert [path.name for path in CheckpointStore(folder, IDENTITY)._folders()] == names


def test_killed_while_the_replay_is_dropped_it_is_dropped_not_damaged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = saved(folder, 4, 8)

    def killed(path: Path, **rest: Any) -> None:
        if path.exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", killed)
        with pytest.raises(KeyboardInterrupt):
            store.drop_replay()
    assert_has_no_replay(folder)
    CheckpointStore(folder, IDENTITY).drop_replay()
    assert names_in(folder) == {"step_000000000004", "step_000000000008"}


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name_and_its_name_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a loss of power, unlike a kill, would show."""
    store, ring = saved(folder, 4)
    calls: list[tuple[str, str]] = []
    sync_folder, rename = checkpoint.sync_folder, checkpoint.os.rename
    monkeypatch.setattr(
        checkpoint, "sync_folder", lambda path: (calls.append(("sync", path.name)), sync_folder(path))
    )
    monkeypatch.setattr(
        checkpoint.os, "rename", lambda old, new: (calls.append(("rename", Path(new).name)), rename(old, new))
    )
    save_at(store, ring, 8)
    named = calls.index(("rename", "step_000000000008"))
    assert calls[named - 1] == ("sync", ".writing")
    assert calls[named + 1] == ("sync", "checkpoints")


def test_a_file_of_another_version_or_run_is_named() -> None:
    wanted = {"game": "breakout", "learning.discount": 0.99}
    assert difference_of_identity(dict(wanted), wanted) is None
    older = str(difference_of_identity({"game": "breakout"}, wanted))
    assert older.startswith("was saved by another version of wn_rl")
    other = difference_of_identity({**wanted, "learning.discount": 0.5}, wanted)
    assert other == "is of another run: learning.discount is 0.5, not 0.99"
