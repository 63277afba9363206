"""What this machine has: memory, devices, programs, versions."""

import contextlib
import ctypes
import importlib.metadata
import os
import platform
import re
import resource
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from wn_rl import __version__
from wn_rl.errors import UserError
from wn_rl.registry import did_you_mean

if TYPE_CHECKING:  # it is imported where it is used: the commands ask for cores before they read their flags
    import torch

_PACKAGES = ("torch", "numpy", "gymnasium", "ale-py", "minatar", "opencv-python-headless", "wandb")
GIGABYTE = 1e9


def num_cores() -> int:
    """The cores that this process may use: of a container, those of its quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # there is no quota, or no such file
        quota, period = map(int, Path("/sys/fs/cgroup/cpu.max").read_text().split())
        cores = min(cores, max(1, quota // period))
    return cores


def available_memory_bytes(root: Path = Path("/")) -> int:
    """Memory that this process can still take: the minimum that the system, its control groups (container
    limits) and its resource limits allow. root: where proc and sys are mounted.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    system = _numbers(root / "proc/meminfo").get("MemAvailable", total // 1024) * 1024
    return max(0, min([system, *_cgroup_memory(root), *_limit_memory(root)]))


def require_memory(num_bytes: int, what: str) -> None:
    """UserError unless something fits. what: its name, with the option that decides it."""
    available = available_memory_bytes()
    if num_bytes > available:
        raise UserError(
            f"{what} needs {num_bytes / GIGABYTE:.2f} GB of memory and {available / GIGABYTE:.2f} GB is free: "
            f"reduce it to at most {100 * available / num_bytes:.2g}%, or use a machine with more memory"
        )


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST_KEPT = 2**30  # bytes; the largest batches of a round take some 100 MB


def keep_freed_memory() -> None:
    """Let the C library keep up to a gibibyte that this process has freed.

    By itself glibc hands large pieces back to the system, which clears each page that is asked for again: with
    many lanes some thousand pages per update, a tenth of its time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            mallopt(option, LARGEST_KEPT)


_COMPILERS = {"cpu": ("C++", "CXX", ("g++",)), "cuda": ("C", "CC", ("gcc", "clang"))}


def require_compiler(what: str, device_type: str) -> None:
    """UserError unless torch.compile, or Triton on CUDA, will find a compiler at the first update."""
    language, variable, usual = _COMPILERS[device_type]
    named = (os.environ[variable],) if variable in os.environ else usual  # as they look for it
    if not any(map(shutil.which, named)):
        raise UserError(
            f"{what} needs a {language} compiler, and there is no {' or '.join(named)}: "
            f"install one, or set {variable}"
        )


def _cgroup_memory(root: Path) -> Iterator[int]:
    """Limit minus use of each memory control group that this process is in, all the way up, v1 and v2.

    Cached file pages count as used there, but the system gives them back: the inactive ones are not counted.
    """
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            names, top = ("memory.max", "memory.current", "inactive_file"), root / "sys/fs/cgroup"
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            top = root / "sys/fs/cgroup/memory"
        else:
            continue
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            with contextlib.suppress(OSError, ValueError):  # no such file, or "max": no limit
                limit, used = (int((folder / name).read_text()) for name in names[:2])
                yield limit - used + _numbers(folder / "memory.stat").get(names[2], 0)
            if folder == top:
                break


def _limit_memory(root: Path) -> Iterator[int]:
    status = _numbers(root / "proc/self/status")
    for limit, field in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        allowed = resource.getrlimit(limit)[0]
        if allowed != resource.RLIM_INFINITY:
            yield allowed - status.get(field, 0) * 1024


def _numbers(path: Path) -> dict[str, int]:
    """The lines `name: number ...` or `name number` of a system file."""
    words = [line.replace(":", " ", 1).split() for line in _lines(path)]
    return {first: int(rest[0]) for first, *rest in filter(None, words) if rest and rest[0].isdigit()}


def _lines(path: Path) -> list[str]:
    """The lines of a system file; empty if there is no such file."""
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def resolve_device(name: str) -> "torch.device":
    """The device of a name: auto (CUDA if it is available, else the CPU), cpu, cuda or cuda:N.

    Raises:
        UserError: it is not available; the message says why and what to do.
    """
    import torch

    if name == "cpu":
        return torch.device("cpu")
    if not re.fullmatch(r"auto|cuda(:[0-9]+)?", name):
        hint = did_you_mean(name, ["auto", "cpu", "cuda", "cuda:0"])
        raise UserError(f"no device {name!r}: choose auto, cpu, cuda or cuda:N{hint}")
    if obstacle := cuda_obstacle():
        if name == "auto":
            return torch.device("cpu")
        raise UserError(f"--device {name} is not available: {obstacle}; or use --device cpu")
    index, count = int(name.partition(":")[2] or 0), torch.cuda.device_count()
    if index >= count:
        raise UserError(f"--device {name} is not available: there is cuda:0 to cuda:{count - 1}")
    return torch.device("cuda", index)


def cuda_obstacle() -> str | None:
    """Why CUDA is not available and what to do about it; None if it is."""
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        return (
            f"torch {torch.__version__} was built without CUDA; install a build with it "
            "(https://pytorch.org/get-started)"
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return None
    reasons = [str(warning.message).splitlines()[0] for warning in caught]
    detail = f" ({reasons[0]})" if reasons else ""
    return f"torch finds no NVIDIA driver or device{detail}; check that nvidia-smi lists one"


def versions() -> dict[str, str | None]:
    """What decides a run's numbers besides its config: versions, and the git commit of a checkout."""
    packages = {name: _version(name) for name in _PACKAGES}
    return {"wn-rl": __version__, "python": platform.python_version(), **packages, "git_commit": git_commit()}


def git_commit(package: Path = Path(__file__).parent) -> str | None:
    """The commit of the checkout that the package is in, "+changes" added if it has any; else None."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        # An installed package may lie in the checkout of something else, as in its virtual environment.
        if Path(git("rev-parse", "--show-toplevel")).resolve() != package.resolve().parent:
            return None
        changes = "+changes" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "HEAD") + changes
    except (OSError, subprocess.SubprocessError):
        return None


def machine_line(device: "torch.device") -> str:
    """The processor or GPU that figures were measured on, and torch's version, in a line."""
    import torch

    on_cuda = device.type == "cuda"
    name = f"{torch.cuda.get_device_name(device)} with {processor()}" if on_cuda else f"{processor()}, no GPU used"
    return f"{name}, torch {_version('torch')}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """E.g. "2 cores of AMD EPYC"."""
    return f"{num_cores()} cores of {cpu_model()}"


def cpu_model(root: Path = Path("/")) -> str:
    """E.g. "AMD EPYC (family 25, model 17)": virtual machines often name no more. root: where proc is mounted."""
    pairs = [line.partition(":") for line in _lines(root / "proc/cpuinfo")]
    found = {key.strip(): value.strip() for key, _, value in reversed(pairs)}  # of the first core
    name = found.get("model name") or platform.processor() or platform.machine()
    numbers = f" (family {found['cpu family']}, model {found['model']})" if "cpu family" in found else ""
    return name + numbers
