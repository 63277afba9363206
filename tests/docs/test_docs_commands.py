"""What the documentation tells people to type is typed here, page by page, on tiny settings."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import tyro
from run_tools import QUICK, status_of, wait_for, wn_rl

from bench.measure import Options
from wn_rl import cli
from wn_rl.commands import compare
from wn_rl.commands._shared import parse_flags

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = {path.name: path.read_text() for path in FILES if path.name != "results.md"}
# Every flag but the suite; one lane, so that a test on Atari does not finish eight games.
TINY = [*QUICK[2:], "--evaluation.num-envs", "1"]
# What only another machine or a day can do; each has a test of its own, and its flags are read here.
ONLY_READ = ("--launcher ray", "--device cuda", "scripts/benchmark.py")
# The last two are in test_examples.py: what they import would stay in this process.
ELSEWHERE = ("source .venv/bin/activate", "ray start ", "cd examples", "wn-rl --import own_parameterization ")


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of each block of code, in order."""
    return re.findall(r"^```(sh|python)\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)


def without(arguments: list[str], flags: list[str]) -> list[str]:
    """The arguments without these flags, each of which has one value."""
    kept, skip = [], False
    for argument in arguments:
        if not skip and argument not in flags:
            kept.append(argument)
        skip = not skip and argument in flags
    return kept


def tiny(arguments: list[str], folder: Path) -> list[str]:
    """A command for this test: few steps, few seeds, no ONNX, and the shared folder of a cluster here."""
    arguments = [argument.replace("/shared", str(folder)) for argument in arguments]
    if arguments[0] == "export":
        return [*arguments, "--no-onnx"]
    smaller = {"train": TINY, "compare": [*TINY, "--torch-threads", "1"], "tune": [*TINY, "--trials", "2"]}
    added = smaller.get(arguments[0], [])
    if arguments[0] == "compare" and "--only" not in arguments:
        added = [*added, "--seeds", "1"]
    # After the game, and before --space, and --only, which may take several words.
    words = without(arguments, added[::2])
    place = 1 if len(words) < 2 or words[1].startswith("--") else 2
    return [*words[:place], *added, *words[place:]]


def check_flags(arguments: list[str]) -> None:
    """Read the flags of a command that is not run."""
    if arguments[0] == "scripts/benchmark.py":
        tyro.cli(Options, args=arguments[1:])
        return
    options, others = parse_flags(compare.Compare, arguments[1:], return_unknown_args=True)
    compare._check(options, others)
    assert compare._runs_of(options, others)


def type_in(line: str, folder: Path) -> None:
    """Do what a line of a shell block says."""
    words = shlex.split(line, comments=True)
    if not words or line.startswith(ELSEWHERE):
        return
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    elif words[:4] == ["python", "-m", "pip", "install"]:
        extra = words[4].removeprefix("wn-rl[").removesuffix("]")
        assert extra in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    elif any(part in line for part in ONLY_READ):
        check_flags(words[1:])
    elif words[:2] == ["wn-rl", "push"] and importlib.util.find_spec("huggingface_hub") is None:
        assert words[1] in cli.COMMANDS
    else:
        assert words[0] == "wn-rl", f"no test knows how to run: {line}"
        assert wn_rl(*tiny(words[1:], folder)) == 0, line


@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if blocks(text)])
def test_the_code_of_a_page_runs_from_top_to_bottom(name: str, tmp_path: Path) -> None:
    if "runs/RUN" in PAGES[name]:
        assert wn_rl("train", "breakout", *QUICK, "--track", "jsonl", "--run-dir", "runs/RUN") == 0
    for language, text in blocks(PAGES[name]):
        if language == "python":
            exec(compile(text, name, "exec"), {})
        else:
            for line in text.splitlines():
                type_in(line, tmp_path)
    if name == "tutorial.md":
        assert (tmp_path / "runs/comparison/report/report.html").exists()
        assert (tmp_path / "runs/comparison/again/report.html").exists()
        assert (tmp_path / "game.mp4").exists()


@pytest.mark.slow
def test_the_job_of_a_batch_system_trains_the_run_of_its_number_and_goes_on_after_its_time() -> None:
    [script] = re.findall(r"^```bash\n(.*?)^```", PAGES["cluster.md"], flags=re.DOTALL | re.MULTILINE)
    smaller = shlex.join(["--seeds", "1", *TINY, "--steps", "5000"])
    for there, here in [("wn-rl ", f"{sys.executable} -m wn_rl "), ("/shared/", ""), ("--seeds 10", smaller)]:
        script = script.replace(there, here)

    def submit(number: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(["bash", "-c", script], env={**os.environ, "SLURM_ARRAY_TASK_ID": str(number)})

    job = submit(1)
    wait_for(lambda: [*Path("minatar/runs").glob("*/checkpoints/step_*")])
    job.terminate()  # as two minutes before the end of its time
    assert job.wait(timeout=120) == 143
    assert [submit(number).wait(timeout=240) for number in (1, 2)] == [0, 0]
    runs = sorted(Path("minatar/runs").iterdir())
    assert [status_of(run)["status"] for run in runs] == ["finished", "finished"]


def test_flags_with_one_value_are_taken_out() -> None:
    assert without(["train", "--steps", "100", "x", "--seed", "1"], ["--steps"]) == ["train", "x", "--seed", "1"]


def test_the_tutorial_names_the_commands_of_a_first_day() -> None:
    typed = set(re.findall(r"^wn-rl (\w+)", PAGES["tutorial.md"], flags=re.MULTILINE))
    assert typed == {"doctor", "train", "resume", "evaluate", "play", "compare", "report"}
