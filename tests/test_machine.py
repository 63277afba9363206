import ctypes
import os
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from wn_rl import machine
from wn_rl.commands.doctor import describe
from wn_rl.errors import UserError
from wn_rl.machine import (
    available_memory_bytes,
    cpu_model,
    git_commit,
    num_cores,
    require_memory,
    resolve_device,
    versions,
)

MEGABYTE = 2**20


def make_root(root: Path, files: dict[str, str]) -> Path:
    """A file system of the machine's own accounts: 1,000 MB free, in no control group."""
    own = {"proc/meminfo": f"MemTotal: 9999999 kB\nMemAvailable: {1000 * 1024} kB\n", "proc/self/cgroup": "0::/\n"}
    for name, text in {**own, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "megabytes"),
    [
        ({}, 1000),
        (  # version 2: the limit of a group above counts; inactive file pages are given back
            {
                "proc/self/cgroup": "0::/outer/inner\n",
                "sys/fs/cgroup/outer/inner/memory.max": "max\n",
                "sys/fs/cgroup/outer/inner/memory.current": f"{5 * MEGABYTE}\n",
                "sys/fs/cgroup/outer/memory.max": f"{300 * MEGABYTE}\n",
                "sys/fs/cgroup/outer/memory.current": f"{150 * MEGABYTE}\n",
                "sys/fs/cgroup/outer/memory.stat": f"anon 1\ninactive_file {50 * MEGABYTE}\n",
            },
            200,
        ),
        (  # version 1, in a container whose path is not visible inside it
            {
                "proc/self/cgroup": "5:cpu:/x\n4:hugetlb,memory:/docker/abc\n0::/x\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{400 * MEGABYTE}\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{100 * MEGABYTE}\n",
                "sys/fs/cgroup/memory/memory.stat": f"total_inactive_file {20 * MEGABYTE}\n",
            },
            320,
        ),
        (  # version 1 writes a huge number for no limit
            {
                "proc/self/cgroup": "4:memory:/a\n",
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "100\n",
            },
            1000,
        ),
        ({"sys/fs/cgroup/memory.max": "100", "sys/fs/cgroup/memory.current": "200"}, 0),
    ],
    ids=["system", "cgroup v2", "cgroup v1", "cgroup v1 without limit", "over its limit"],
)
def test_available_memory_is_the_least_bound(tmp_path: Path, files: dict[str, str], megabytes: int) -> None:
    assert available_memory_bytes(make_root(tmp_path, files)) == megabytes * MEGABYTE


def test_without_linux_accounts_it_is_the_memory_of_the_machine(tmp_path: Path) -> None:
    assert available_memory_bytes(tmp_path) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_resource_limits_count_what_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    def getrlimit(which: int) -> tuple[int, int]:
        value = 500 * MEGABYTE if which == getattr(resource, limit) else resource.RLIM_INFINITY
        return value, resource.RLIM_INFINITY

    monkeypatch.setattr(resource, "getrlimit", getrlimit)
    used = {"proc/self/status": f"Name: x\nVmSize: {200 * 1024} kB\nVmData: {100 * 1024} kB\n"}
    expected = 300 if limit == "RLIMIT_AS" else 400
    assert available_memory_bytes(make_root(tmp_path, used)) == expected * MEGABYTE


def test_a_real_resource_limit_is_obeyed() -> None:
    code = """
import resource
from wn_rl.machine import available_memory_bytes, require_memory
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 200_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
assert 100_000_000 < available_memory_bytes() <= 200_000_000
bytearray(int(available_memory_bytes() * 0.8))
try:
    require_memory(7_060_000_000, "the replay (--learning.replay-capacity)")
except ValueError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("the replay (--learning.replay-capacity) needs 7.06 GB of memory and ")
    assert said.count("\n") == 1


def test_too_little_memory_is_an_error_with_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: 2_500_000_000)
    require_memory(2_500_000_000, "the replay")
    with pytest.raises(UserError, match=r"the replay needs 10.00 GB .* 2.50 GB is free: reduce it to at most 25%"):
        require_memory(10_000_000_000, "the replay")


def test_devices_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cuda_obstacle", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda", 0)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UserError, match="there is cuda:0 to cuda:1"):
        resolve_device("cuda:2")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("gpu", ""), ("cud", "mean cuda"), ("cuda:x", "mean cuda"), ("cuda:", "mean cuda"), ("CPU", "")],
)
def test_unknown_devices_are_refused(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=f"no device '{name}': choose auto, cpu, cuda or cuda:N.*{hint}"):
        resolve_device(name)


def test_cuda_without_a_cuda_build_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match=r"built without CUDA; install .* or use --device cpu"):
        resolve_device("cuda")


def test_cuda_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable() -> bool:
        warnings.warn("CUDA initialization: driver too old\nmore", stacklevel=1)
        return False

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", unavailable)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match=r"no NVIDIA driver or device \(CUDA initialization: driver too old\)"):
        resolve_device("cuda:0")


@pytest.mark.cuda
def test_a_tensor_goes_to_the_device() -> None:
    assert torch.zeros(1, device=resolve_device("auto")).device == resolve_device("cuda:0")


def test_versions_and_description_are_plain() -> None:
    found = versions()
    assert found["torch"] == torch.__version__.partition("+")[0] or found["torch"] == torch.__version__
    assert found["python"] == sys.version.split()[0]
    described = describe()
    assert {"cpu", "free memory", "ffmpeg", "wandb key", "git commit"} <= described.keys()
    assert all(isinstance(value, str) and "\n" not in value for value in described.values())


def test_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2, 5}, raising=False)
    assert num_cores() == 3
    assert describe()["cpu"].startswith("3 cores of ")
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert num_cores() == 1


def test_a_processor_is_named_with_its_numbers(tmp_path: Path) -> None:
    assert cpu_model(tmp_path)  # without such accounts, by what Python knows
    core = "processor\t: 0\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n"
    make_root(tmp_path, {"proc/cpuinfo": core + core.replace("26", "25")})
    assert cpu_model(tmp_path) == "AMD EPYC (family 26, model 2)"
    make_root(tmp_path, {"proc/cpuinfo": "processor : 0\nmodel name : Neoverse-V1\n"})
    assert cpu_model(tmp_path) == "Neoverse-V1"


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_is_that_of_the_packages_own_checkout(tmp_path: Path) -> None:
    package = tmp_path / "checkout" / "wn_rl"
    package.mkdir(parents=True)
    assert git_commit(package) is None
    git(package.parent, "init", "--quiet")
    assert git_commit(package) is None  # no commit yet
    (package / "module.py").write_text("1")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "--quiet", "--message", "one")
    commit = git(package.parent, "rev-parse", "HEAD")
    assert git_commit(package) == commit
    (package / "module.py").write_text("2")
    assert git_commit(package) == f"{commit}+changes"
    installed = package.parent / "venv" / "site-packages" / "wn_rl"
    installed.mkdir(parents=True)
    assert git_commit(installed) is None


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
def test_a_run_keeps_the_memory_that_it_frees() -> None:
    """Blocks as large as a round's batches: by itself glibc hands them back, and asks for new pages each time."""
    code = """
import resource, torch
from wn_rl.agents.experiment import make_dqn
from wn_rl.registry import PRESETS

def pages_of_a_block():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(10_000_000)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10

by_itself = pages_of_a_block()
make_dqn(PRESETS["classic"]("CartPole-v1"), torch.device("cpu"))
pages_of_a_block()
print(by_itself > 5_000, pages_of_a_block() < 100)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
