"""Prove that a refactor changed no behaviour: short runs by the code of a commit and by that of this folder.

    python scripts/same.py [REF] [--only PATTERN]

What each run leaves must be equal bit for bit: metrics, the checkpoints' states (weights, optimizer, games),
the replay, and the rest (best network, config, videos, the list of files). It is read as JSON and safetensors,
without wn_rl. The runs of REF are kept in build/same/COMMIT; this folder's are made again each time.
Exit codes: 0 all runs are equal, 1 one differs or cannot be compared, 2 REF or PATTERN names nothing.

Both sides share Inductor's cache. Its keys are the traced graph, its inputs, and the compiler's settings and
version, but no file's name: what is equal is compiled once, and what has changed is compiled again.
"""

import argparse
import fnmatch
import hashlib
import importlib.metadata
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "same"
AT_ONCE = 2  # runs, each on one core

SHORT = """--device cpu --torch-threads 1 --seed 1 --run-name same --track jsonl --keep-replay
    --network.initialization data_dependent
    --learning.epsilon-steps 300 --learning.target-period 80 --network.init-states 32
    --evaluation.held-out-states 16 --evaluation.video-period 0"""
QUICK = f"""{SHORT} --steps 3000 --log-period 250 --checkpoint-period 600 --learning.replay-start 200
    --learning.replay-capacity 1500 --evaluation.period 700 --evaluation.steps 300"""
CLASSIC = f"CartPole-v1 --suite classic {QUICK}"
MINATAR = f"breakout --suite minatar {QUICK}"
ATARI = f"""breakout --preset laptop {SHORT} --steps 560 --log-period 80 --checkpoint-period 256
    --learning.replay-start 80 --learning.replay-capacity 256 --evaluation.period 240 --evaluation.steps 60
    --evaluation.num-envs 1 --environment.max-episode-frames 200"""
AUTHORS = """--optimizer.name adamax_authors --network.log-scale 3 --network.max-v-norm 2
    --learning.no-clip-rewards --evaluation.video-period 2"""
NATURE = """--parameterization normal --optimizer.name rmsprop_centered --network.initialization torch
    --learning.batch-size 32"""
PARAMETERIZATIONS = ("normal", "batch_norm", "weight_norm", "weight_norm_mean_only_bn")
GRID = itertools.product(PARAMETERIZATIONS, ("eager", "compile"), ("float32", "bfloat16"))
RUNS = {
    "classic": CLASSIC,
    **{
        f"minatar-{name}-{mode}-{precision}": f"{MINATAR} --parameterization {name} --accelerate {mode}"
        f" --learning.precision {precision}"
        for name, mode, precision in GRID
    },
    "minatar-authors": f"{MINATAR} {AUTHORS}",
    "minatar-authors-compile": f"{MINATAR} {AUTHORS} --accelerate compile",
    "minatar-nature": f"{MINATAR} {NATURE}",
    "minatar-nature-compile": f"{MINATAR} {NATURE} --accelerate compile",
    "atari-1-lane": f"{ATARI} --num-envs 1",
    "atari-8-lanes": f"{ATARI} --num-envs 8",
    "atari-8-lanes-compile-bfloat16": f"{ATARI} --accelerate compile --learning.precision bfloat16",
    "atari-nature": f"{ATARI} {NATURE} --preset nature --environment.resize bilinear"
    " --environment.no-life-loss-terminates",
}
KILLED = {  # after their first checkpoint, and resumed; each must equal the run that is named beside it too
    "killed-classic": "classic",
    "killed-minatar": "minatar-weight_norm-eager-float32",
    "killed-minatar-compile": "minatar-weight_norm_mean_only_bn-compile-bfloat16",
    "killed-atari": "atari-8-lanes",
}
RUNS |= {name: RUNS[twin] for name, twin in KILLED.items()}

PARTS = {
    "metrics": "metrics.jsonl *",
    "state": "checkpoints/step_*",
    "replay": "checkpoints/replay/*",
    "rest": "*",
}
IGNORED = re.compile(
    r"metrics\.jsonl .* (frames_per_second|seconds)"
    r"|.*/state\.json (monitor\.seconds|tracker\.jsonl\.(offset|sha256))"  # of metrics.jsonl, the times too
    r"|.*/manifest\.json (files\.state\.json|sha256)"  # digests of these
    r"|.*/manifest\.json identity\..*|best_network\.safetensors metadata\.(identity|sha256)"  # of the config
    r"|config\.json config\.environment\.(emulator_threads|processes)"  # settings of where lanes are computed
    r"|config\.json (?!config\.).*|config\.json .*(path|dir|folder)"  # versions, commit, machine, command
    r"|status\.json message"  # it names the folder
)


# Of code that has the setting, which presets now choose: as the initialization gives it.
CHANGED_DEFAULTS = {"output_scale": "--network.output-scale None"}

Array = tuple[str, tuple[int, ...], bytes]  # a tensor's type, shape and bytes
Value = str | Array  # a str is JSON
Values = dict[str, Value]


def read_run(folder: Path) -> Values:
    """All that a run's folder holds but what is ignored, by file and place in it."""
    values: Values = {}
    for path in sorted(folder.rglob("[!.]*")):
        if path.is_file():
            values |= {f"{path.relative_to(folder)} {place}": value for place, value in _read_file(path)}
    return {name: value for name, value in values.items() if not IGNORED.fullmatch(name)}


def _read_file(path: Path) -> Iterator[tuple[str, Value]]:
    if path.suffix == ".jsonl":
        for number, row in enumerate(map(json.loads, path.read_text().splitlines()), 1):
            yield from ((f"line {number}, step {row.get('step')}: {key}", json.dumps(row[key])) for key in row)
    elif path.suffix == ".json":
        tensors = path.with_name("tensors.safetensors")
        yield from _leaves(json.loads(path.read_bytes()), "", _tensors(tensors) if tensors.exists() else {})
    elif path.suffix == ".safetensors":
        yield from _tensors(path).items()
    else:
        yield "", ("file", (path.stat().st_size,), path.read_bytes())


def _tensors(path: Path) -> Values:
    """A safetensors file has the length of a JSON header, the header, and the tensors' bytes."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    values = dict(_leaves(header.pop("__metadata__", {}), "metadata", {}))
    for name, entry in header.items():
        first, stop = entry["data_offsets"]
        values[name] = entry["dtype"], tuple(entry["shape"]), data[start + first : start + stop]
    return values


def _leaves(node: Any, place: str, tensors: Values) -> Iterator[tuple[str, Value]]:
    """The values of a JSON tree; {"$tensor": NAME} and the like stand for tensors."""
    if isinstance(node, dict) and len(node) == 1 and (tag := next(iter(node))) in ("$tensor", "$array", "$scalar"):
        yield f"{place} ({tag[1:]})", tensors[node[tag]]
    elif isinstance(node, dict | list) and node:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, f"{place}.{key}".lstrip("."), tensors)
    else:
        yield place, json.dumps(node)


def compare(one: Values, other: Values) -> dict[str, str]:
    """For each part that differs, what does first. What only `one` has beside a value of both is new.

    It may be a setting, a metric, or a part of a checkpoint's state.
    """
    found: dict[str, str] = {}
    rest = {**other, **one}
    for part, pattern in PARTS.items():  # the last takes all that is left
        names = fnmatch.filter(rest, pattern)
        for name in names:
            del rest[name]
        compared = [name for name in names if name in other or not is_new(name, other)]
        differing = [name for name in compared if one.get(name) != other.get(name)]
        differing.sort(key=lambda name: ".learner." not in name)  # a weight that differs changes much else
        if not names:
            found[part] = f"there is nothing to compare of {part}"
        for name in differing[:1]:
            found[part] = f"{name}: {_difference(one.get(name), other.get(name))} ({len(differing)} differ)"
    return found


def is_new(name: str, other: Values) -> bool:
    """Whether a name that `other` lacks is a new setting, metric or part of a state, and no row or file more."""
    row = name.rpartition(": ")[0]
    has_row = not name.startswith("metrics.jsonl ") or f"{row}: step" in other
    return (
        has_row and "replay/" not in name and name.startswith(("config.json ", "metrics.jsonl ", "checkpoints/"))
    )


def _difference(one: Value | None, other: Value | None) -> str:
    if isinstance(one, tuple) and isinstance(other, tuple) and one[:2] == other[:2]:
        size = len(one[2]) // math.prod(one[1])
        a, b = (np.frombuffer(data, np.uint8).reshape(-1, size) for data in (one[2], other[2]))
        places = np.flatnonzero((a != b).any(axis=1))
        return f"{len(places)} of {len(a)} elements, the first of them number {places[0]}"
    shown = [f"{value[:2]}" if isinstance(value, tuple) else value or "missing" for value in (one, other)]
    return f"{shown[0]:.80}, not {shown[1]:.80}"


def start(code: Path, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Begin a Python process that imports a folder's code."""
    fixed = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "WANDB_MODE": "offline"}
    ours = {"PYTHONPATH": str(code), "TORCHINDUCTOR_CACHE_DIR": str(WORK / "inductor")}
    command, environment = [sys.executable, *arguments], {**os.environ, **fixed, **ours}
    with log.open("ab") as output:
        return subprocess.Popen(command, cwd=code, env=environment, stdout=output, stderr=output)


def make_run(name: str, code: Path, folder: Path) -> None:
    """Make a run, and put it in place when it is whole; else say why not."""
    writing, log = folder.with_name(f".{folder.name}"), folder.with_name(f"{folder.name}.log")
    for old in (folder, writing):
        shutil.rmtree(old, ignore_errors=True)
    log.unlink(missing_ok=True)
    settings = (code / "wn_rl" / "config.py").read_text()
    flags = [flag for setting, flag in CHANGED_DEFAULTS.items() if setting in settings]
    words = " ".join([RUNS[name], *flags]).split()
    process = start(code, log, "-m", "wn_rl.cli", "train", *words, "--run-dir", str(writing))
    if name in KILLED and kill(process, writing):
        process = start(code, log, "-m", "wn_rl.cli", "resume", str(writing))
    elif name in KILLED:
        print(f"{name}: it ended before it could be killed; see {log}", flush=True)
        return
    if process.wait() == 0:
        writing.rename(folder)
    else:
        print(f"{name}: it ended with code {process.returncode}; see {log}", flush=True)


def kill(process: subprocess.Popen[bytes], run: Path) -> bool:
    """Kill a run once it has a checkpoint. Returns whether that was before its end."""
    while process.poll() is None and not any(run.glob("checkpoints/step_*")):
        time.sleep(0.005)
    process.kill()
    caught = process.wait() == -signal.SIGKILL
    return caught and bool(json.loads((run / "status.json").read_bytes())["status"] == "running")


def make_runs(title: str, code: Path, folders: dict[str, Path]) -> None:
    """Make runs by a folder's code, some at a time."""
    begun, log = time.monotonic(), WORK / "import.log"
    script = f"import sys, wn_rl.cli; sys.exit(not wn_rl.cli.__file__.startswith({f'{code}/wn_rl/'!r}))"
    if start(code, log, "-c", script).wait() != 0:
        sys.exit(f"wn_rl cannot be imported from {code}; see {log}")
    print(f"{title}: {len(folders)} runs to make", flush=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda name: make_run(name, code, folders[name]), folders))
    print(f"{title}: made in {time.monotonic() - begun:.0f} s", flush=True)


def code_of(commit: str) -> Path:
    """A folder with the code of a commit."""
    code = WORK / commit / "code"
    code.mkdir(parents=True, exist_ok=True)
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(code)], input=archive, check=True)
    return code


def kept_name(name: str) -> str:
    """Of a run of a commit: with a digest of what else decides it, its flags and the packages installed."""
    packages = {f"{found.name} {found.version}" for found in importlib.metadata.distributions()}
    others = sorted(package for package in packages if not package.startswith("wn-rl "))
    decisive = repr((RUNS[name], sys.version, others))
    return f"{name}-{hashlib.sha256(decisive.encode()).hexdigest()[:8]}"


def print_row(title: str, one: Path, other: Path) -> bool:
    """Print a row of the table, and what differs first. Returns whether all is equal."""
    try:
        if not (one.is_dir() and other.is_dir()):
            raise FileNotFoundError(f"there is no {other if one.is_dir() else one}")
        found = compare(read_run(one), read_run(other))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"{title:<52}cannot be compared: {type(error).__name__}: {error}")
        return False
    cells = "".join(f"{'DIFFERS' if part in found else 'equal':<9}" for part in PARTS)
    print(f"{title:<52}{cells}".rstrip(), *(f"    {line}" for line in found.values()), sep="\n")
    return not found


def main() -> int:
    """Make the runs of both sides, compare them, and return the exit code."""
    parser = argparse.ArgumentParser(description="Prove that a refactor changed no behaviour.")
    parser.add_argument("ref", nargs="?", default="HEAD", help="the commit to compare with (default: HEAD)")
    parser.add_argument("--only", default="", metavar="PATTERN", help="runs whose name contains it")
    options = parser.parse_args()
    command = ["git", "rev-parse", "--verify", "--quiet", f"{options.ref}^{{commit}}"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    chosen = fnmatch.filter(RUNS, f"*{options.only}*")
    if not chosen or not commit:
        parser.error(f"no run is named {options.only!r}" if commit else f"there is no commit {options.ref!r}")
    names = [name for name in RUNS if {name} & {*chosen, *map(KILLED.get, chosen)}]
    here = {name: WORK / "here" / name for name in names}
    there = {name: WORK / commit / kept_name(name) for name in names}
    (WORK / "here").mkdir(parents=True, exist_ok=True)
    missing = {name: run for name, run in there.items() if not run.is_dir()}
    make_runs(commit[:12], code_of(commit), missing)
    make_runs("this folder", ROOT, here)
    print(f"\n{'run':<52}" + "".join(f"{part:<9}" for part in PARTS).rstrip())
    pairs = [(name, here[name], there[name]) for name in here]
    pairs += [(f"{name} = undisturbed", here[name], here[twin]) for name, twin in KILLED.items() if name in here]
    equal = [print_row(*pair) for pair in pairs]
    print("all are equal" if all(equal) else f"{equal.count(False)} of {len(equal)} are not equal")
    return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
