"""Folders of runs and agents as strangers may make them: each is read as it was, or refused in one line."""

import contextlib
import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from run_tools import QUICK, wn_rl

from wn_rl import cli
from wn_rl.commands._shared import open_network
from wn_rl.errors import in_one_line
from wn_rl.export import exported_files
from wn_rl.report.read import read_run
from wn_rl.run.checkpoint import _digest
from wn_rl.run.files import read_file, sha256
from wn_rl.run.loading import load_run
from wn_rl.run.tensor_files import write_network_file

HOSTILE = [
    *(None, True, -1, 0, 10**12, 2**63 - 1, 10**400, 0.5, 1e308, float("inf"), float("nan"), "", "x" * 200_000),
    *("\x1b[2J\n", "\ud800", "os:system", "evil:Evil-v0", "../../../etc/passwd", [], {}, [[]], {"$tensor": "0"}),
    *({"$array": "no"}, {"$int": "zz"}, [1, "a", None], "deep"),
]
DEEP = "[" * 50_000 + "]" * 50_000
LONGEST = 1200  # characters of a refusal


def places(tree: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is a value in a JSON tree."""
    for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*place, name)
        if isinstance(value, dict | list):
            yield from places(value, (*place, name))


def with_hostile_value(text: str, pick: random.Random) -> str:
    tree = json.loads(text)
    *parents, name = pick.choice(list(places(tree)))
    node = tree
    for parent in parents:
        node = node[parent]
    if pick.random() < 0.2:
        del node[name]
    else:
        node[name] = pick.choice(HOSTILE)
    return json.dumps(tree).replace('"deep"', DEEP)


def mutate(folder: Path, other: Path, pick: random.Random) -> str:
    """Change one thing in a folder; returns what. other: a folder of the same kind."""
    paths = sorted(folder.rglob("*"))
    path = pick.choice([path for path in paths if path.is_file()])
    data, outside = path.read_bytes(), folder.parent / "outside"
    kind = pick.choice(
        ["flip", "flip", "cut", "json", "json", "json", "swap", "link", "tree", "pipe", "folder", "gone"]
    )
    folders = [path for path in paths if path.is_dir()]
    if kind == "tree" and folders:
        path = pick.choice(folders)
        path.rename(outside)
        path.symlink_to(outside)
    elif kind == "json" and path.suffix.startswith(".json"):
        lines = data.decode().splitlines() if path.suffix == ".jsonl" else [data.decode()]
        number = pick.randrange(len(lines))
        lines[number] = with_hostile_value(lines[number], pick)
        path.write_text("\n".join([*lines, ""]))
    elif kind in ("link", "pipe", "folder", "gone"):
        path.unlink()
        outside.write_bytes(data)
        if kind == "link":
            path.symlink_to(pick.choice([outside, Path("/dev/zero"), folder, Path("nowhere")]))
        elif kind != "gone":
            (os.mkfifo if kind == "pipe" else os.mkdir)(path)
    elif kind == "swap":
        found = sorted(found for found in other.rglob("*") if found.is_file())
        path.write_bytes(
            pick.choice([*found, *[each for each in found if each.name == path.name] * 5]).read_bytes()
        )
    elif kind == "cut":
        path.write_bytes(data[: pick.randrange(len(data))])
    else:
        place = pick.randrange(pick.choice([len(data), min(len(data), 2000)]))
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << pick.randrange(8)]) + data[place + 1 :])
    return f"{kind} {path.relative_to(folder)}"


def forge(folder: Path) -> None:
    """Make the digests fit what is there, as far as it can be read."""
    for path in sorted(folder.glob("*.safetensors")):
        with contextlib.suppress(Exception):
            data = read_file(path)
            metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
            if metadata.pop("config.json", None):
                metadata["config.json"] = sha256(read_file(folder / "config.json"))
            metadata.pop("sha256", None)
            write_network_file(path, safetensors.torch.load(data), metadata)
    for path in sorted(folder.glob("checkpoints/step_*/manifest.json")):
        with contextlib.suppress(Exception):
            state = json.loads(read_file(path.with_name("state.json")))
            rows = state["tracker"]["jsonl"]
            rows["sha256"] = sha256(read_file(folder / "metrics.jsonl")[: rows["offset"]])
            path.with_name("state.json").write_text(json.dumps(state))
        with contextlib.suppress(Exception):
            body = json.loads(read_file(path))
            body["files"] = {name: sha256(read_file(path.with_name(name))) for name in body["files"]}
            for segment in body["segments"]:
                segment["sha256"] = sha256(read_file(folder / "checkpoints" / "replay" / segment["name"]))
            body.pop("sha256", None)
            path.write_text(json.dumps({**body, "sha256": _digest(body)}))


def digest(network: Any) -> str:
    values = [value.numpy().tobytes() for value in network.state_dict().values()]
    return hashlib.sha256(b"".join(values)).hexdigest()


def resumed(folder: Path) -> str:
    """The weights after `resume` to the step where the run is."""
    try:
        cli.main(["resume", str(folder)])
    except SystemExit as stop:
        if stop.code != 0:
            raise
    return digest(load_run(folder, "latest").network)


def agent(folder: Path) -> tuple[str, str]:
    _, config, network, name = open_network(folder, None, "cpu")
    return f"{config} {name}", digest(network)


Readers = dict[str, Callable[[Path], Any]]
OF_RUN: Readers = {
    "best": lambda folder: digest(load_run(folder).network),
    "latest": lambda folder: digest(load_run(folder, "latest").network),
    "report": lambda folder: [row.get("eval/return_mean") for row in read_run(folder).rows],
    "resume": resumed,
}
OF_AGENT: Readers = {"play": agent, "push": lambda folder: {"model.safetensors"} <= {*exported_files(folder)}}
TRAIN = ["train", "breakout", *QUICK, "--track", "jsonl", "--device", "cpu", "--keep-replay"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that stopped after their last step, and their agents."""
    made = tmp_path_factory.mktemp("made")
    for seed in ("1", "2"):
        run = made / f"run{seed}"
        assert wn_rl(*TRAIN, "--seed", seed, "--learning.replay-capacity", "400", "--run-dir", str(run)) == 0
        status = json.loads((run / "status.json").read_text())
        (run / "status.json").write_text(json.dumps({**status, "status": "interrupted"}))
        assert wn_rl("export", str(run), "--out", str(made / f"agent{seed}"), "--no-onnx") == 0
    return made


def contents(folder: Path) -> dict[Path, bytes]:
    """Of the files at or under a path."""
    return {path: path.read_bytes() for path in [folder, *folder.rglob("*")] if path.is_file()}


def fault(read: Callable[[], Any], expected: list[Any], is_forged: bool) -> str:
    """What is wrong with how a folder is read: neither as it was nor refused in one line; empty if nothing is."""
    try:
        found = read()
        return "" if is_forged or found in expected else f"gave {found!r}"
    except cli._MISTAKES as error:
        return "" if len(in_one_line(error)) < LONGEST else "long words"
    except BaseException as error:
        return "" if isinstance(error, SystemExit) and error.code == 2 else repr(error)


def check(kind: str, readers: Readers, numbers: range, made: Path, folder: Path, capsys: Any) -> None:
    """Mutate the first folder of a kind by each number, and see what its readers make of it."""
    whole, copy = made / f"{kind}1", folder / "copy"
    shutil.copytree(whole, copy)
    before = {name: [reader(copy)] for name, reader in readers.items()}
    if kind == "run":  # where the newest checkpoint is damaged, that is said, and the one before is used
        shutil.rmtree(copy)
        shutil.copytree(whole, copy)
        shutil.rmtree(max(copy.glob("checkpoints/step_*")))
        before["latest"].append(OF_RUN["latest"](copy))
    faults = []
    for number in numbers:
        shutil.rmtree(folder)
        shutil.copytree(whole, copy)
        change = mutate(copy, made / f"{kind}2", random.Random(number))
        if is_forged := number % 3 == 0:
            forge(copy)
        others = contents(folder / "outside")
        for name in (
            readers if number % 4 == 0 else [name for name in readers if name != "resume"]
        ):  # which is slow
            capsys.readouterr()
            found = fault(partial(readers[name], copy), before[name], is_forged)
            said = capsys.readouterr().err
            if "Traceback" in said or max(map(len, said.splitlines()), default=0) > 2 * LONGEST:
                found += said[-300:]
            if found:
                faults.append(f"{number}: {change}, {name} {found}")
        if contents(folder / "outside") != others:
            faults.append(f"{number}: {change} touched what is outside")
    assert not faults


@pytest.mark.parametrize("chunk", range(4))
def test_a_run_of_a_stranger(chunk: int, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check("run", OF_RUN, range(chunk * 40, chunk * 40 + 40), made, tmp_path / "stranger", capsys)


def test_an_agent_of_a_stranger(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check("agent", OF_AGENT, range(100), made, tmp_path / "stranger", capsys)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "readers"), [("run", OF_RUN), ("agent", OF_AGENT)])
@pytest.mark.parametrize("chunk", range(5))
def test_ten_thousand_folders_of_strangers(
    chunk: int, kind: str, readers: Readers, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = 1000 * (chunk + 1)
    check(kind, readers, range(first, first + 1000), made, tmp_path / "stranger", capsys)
