"""The files of a run or an agent, which may come from a stranger: opened, read, checked and written here.

A link is never followed, and a pipe never waited for. What is written survives a kill or a full disk.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from wn_rl.errors import say

MAX_JSON, MAX_LINES, MAX_TENSORS = 2**26, 2**30, 2**32  # bytes of a file
_LOG_TAIL_BYTES = 4096
_CANNOT = errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL  # what a network disk may answer


@contextlib.contextmanager
def opened(path: Path, flags: int = os.O_RDONLY, limit: int = 2**63) -> Iterator[int]:
    """Context manager: the descriptor of a regular file, or with O_DIRECTORY of a folder.

    PermissionError: the file is a link, a pipe or a device, or has more bytes than the limit.
    """
    is_folder = bool(flags & os.O_DIRECTORY)
    if not is_folder and path.is_symlink():
        raise PermissionError(errno.EPERM, "it is a link", str(path))
    descriptor = os.open(path, flags if is_folder else flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    try:
        found = os.fstat(descriptor)
        if not is_folder and (not stat.S_ISREG(found.st_mode) or found.st_size > limit):
            raise PermissionError(errno.EPERM, "it is not a regular file of a usual size", str(path))
        yield descriptor
    finally:
        os.close(descriptor)


def read_file(path: Path, limit: int = MAX_JSON) -> bytes:
    """The content of a regular file. OSError: see `opened`."""
    with opened(path, limit=limit) as descriptor, open(descriptor, "rb", closefd=False) as file:
        return file.read()


def parse_json(data: bytes | str) -> Any:
    """A JSON value; integers of more than 64 bits become floats. ValueError or RecursionError: it is not JSON."""
    return json.loads(data, parse_int=lambda digits: int(digits) if len(digits) <= 20 else float(digits))


def require_form(value: Any, form: Any, place: str = "") -> None:
    """ValueError, with its place, unless a JSON value has a form.

    form: a type, or a tuple of types; [the form of each item]; {str: the form of each value}; or the forms by name
    of what a dict must have at least. A bool does not count as an int, but an int counts as a float. A float must
    be finite.
    """
    kinds = form if isinstance(form, tuple) else (type(form) if isinstance(form, list | dict) else form,)
    is_fit = type(value) in kinds or (type(value) is int and float in kinds)
    if not is_fit or (type(value) is float and not math.isfinite(value)):
        raise ValueError(f"{place or 'it'} must be of type {' or '.join(kind.__name__ for kind in kinds)}")
    items = dict(enumerate(value)) if isinstance(form, list) else value
    forms = dict.fromkeys(items, form[0]) if isinstance(form, list) else form
    forms = dict.fromkeys(items, form[str]) if isinstance(form, dict) and str in form else forms
    for name, inner in forms.items() if isinstance(forms, dict) else ():
        if name not in items:
            raise ValueError(f"{place or 'it'} has no {name}")
        require_form(items[name], inner, f"{place} {name}".strip()[:80])


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte; a full disk may take a part of them and then raise OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def write_synced(path: Path, data: bytes) -> None:
    """Make a new file and wait until the disk has it. FileExistsError if there is one of that name."""
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
        write_all(descriptor, data)
        os.fsync(descriptor)


say_once = cache(say)


@contextlib.contextmanager
def if_possible(what: str) -> Iterator[None]:
    """Context manager: what the disk cannot do is said, once."""
    try:
        yield
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        say_once(f"warning: this disk cannot {what} ({error.strerror})")


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder: a rename is only then safe."""
    with opened(folder, os.O_DIRECTORY) as descriptor, if_possible("sync folders: a power cut may lose files"):
        os.fsync(descriptor)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Context manager: any other process that asks for the same folder, which must exist, waits.

    On a file system that cannot lock a folder (NFS), no process waits.
    """
    with opened(folder, os.O_DIRECTORY) as descriptor:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Context manager: a file that this process alone has locked, with its number in it.

    BlockingIOError: another process has it, whose number is the strerror.
    """
    with opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
        try:
            with if_possible("lock files: start no second process in this folder"):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(error.errno, os.read(descriptor, 32).decode(errors="replace").strip()) from None
        os.ftruncate(descriptor, 0)
        write_all(descriptor, f"{os.getpid()}\n".encode())
        yield


def replace_file(path: Path, data: bytes) -> None:
    """Put a file in place at once: a reader, or a run after a kill, finds the old one or the new one.

    Raises:
        OSError: it could not be written; the old one is whole.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    try:
        write_synced(temporary, data)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def append_line(path: Path, text: str) -> None:
    """Add a line to a file, which is made if it does not exist. A line cut off before stays on its own."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
    with opened(path, flags) as descriptor, open(descriptor, "ab+", closefd=False) as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        is_whole = file.read(1) in (b"", b"\n")
        file.write((b"" if is_whole else b"\n") + text.encode() + b"\n")


def sha256(data: bytes) -> str:
    """The digest in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """The digest of a file, read in pieces."""
    with opened(path) as descriptor, open(descriptor, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def last_line(log: Path) -> str:
    """The last line of a log that is not blank; empty if it has none, or could not be read."""
    try:
        with opened(log) as descriptor, open(descriptor, "rb", closefd=False) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
