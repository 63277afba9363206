"""The files of a run or an agent, which may come from a stranger: opened, read, checked and written here.

A link is never followed, a pipe never waited for, and a file of another size than its kind has is not read. What
is written survives a kill or a full disk: it is there whole or not at all.
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
from typing import Any, NoReturn

from wn_rl.errors import UserError, say

MAX_JSON, MAX_LINES, MAX_TENSORS = 2**26, 2**30, 2**32  # bytes of a file
_MAX_INT = 2**63
_LOG_TAIL_BYTES = 4096
# What a system that cannot do a thing answers: a network file system without locks, say.
_CANNOT = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


class RefusedFileError(OSError, UserError):
    """A file that is not read or written, whatever is in it."""

    def __str__(self) -> str:
        return f"{self.filename} is not used: {self.strerror}"


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte; a full disk may take a part of them and then raise OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def opened(path: Path, flags: int = os.O_RDONLY, limit: int | None = None) -> Iterator[int]:
    """Context manager: the descriptor of a regular file of at most limit bytes.

    Raises:
        RefusedFileError: it is a link, a pipe, a device or too large.
        OSError: there is none, or the system refuses.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise RefusedFileError(errno.ELOOP, "it is a link, and links are not followed", str(path)) from None
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise RefusedFileError(errno.EINVAL, "it is not a regular file", str(path))
        if limit is not None and found.st_size > limit:
            raise RefusedFileError(errno.EFBIG, f"it is larger than {limit:,} bytes", str(path))
        yield descriptor
    finally:
        os.close(descriptor)


def read_file(path: Path, limit: int = MAX_JSON) -> bytes:
    """The content of a regular file. OSError: see `opened`."""
    with opened(path, limit=limit) as descriptor, open(descriptor, "rb", closefd=False) as file:
        return file.read()


def read_json(path: Path) -> Any:
    """What a JSON file holds. OSError: see `opened`. ValueError: see `parse_json`."""
    return parse_json(read_file(path))


def parse_json(data: bytes | str) -> Any:
    """A JSON value whose numbers Python's float can hold. ValueError, in one line, otherwise."""
    try:
        return json.loads(data, parse_int=_integer, parse_float=_float, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _integer(digits: str) -> int:
    number = int(digits) if len(digits) <= len(str(-_MAX_INT)) else _MAX_INT
    return number if abs(number) <= _MAX_INT else _refuse(digits)


def _float(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse(digits)


def _refuse(number: str) -> NoReturn:
    raise ValueError(f"{number:.20} is not a number that can be used")


def require_form(value: Any, form: Any, place: str) -> None:
    """ValueError, with its place, unless a JSON value has a form.

    form: a type; a tuple of types; [the form of every item]; {str: the form of every value}; or the forms by name
    of what a dict must have, where other names are left alone. A bool is no int, and an int is a float.

    >>> require_form({"step": 1.5}, {"step": int}, "row")
    Traceback (most recent call last):
    ValueError: step of row must be of type int
    """
    if isinstance(form, list | dict):
        if not isinstance(value, type(form)):
            raise ValueError(f"{place} must be of type {type(form).__name__}")
        if isinstance(form, list):
            form = dict.fromkeys(range(len(value)), form[0])
        for name in value if str in form else form:
            if isinstance(value, dict) and name not in value:
                raise ValueError(f"{place} has no {name}")
            require_form(value[name], form.get(str, form.get(name)), f"{name!s:.40} of {place}")
        return
    kinds = form if isinstance(form, tuple) else (form,)
    if type(value) not in kinds and not (type(value) is int and float in kinds):
        words = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
        raise ValueError(f"{place} must be of type {words}")


def write_synced(path: Path, data: bytes) -> None:
    """Make a new file and wait until the disk has it. FileExistsError if there is one of that name."""
    with _opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
        write_all(descriptor, data)
        os.fsync(descriptor)


@cache
def _warn(what: str, error: str) -> None:
    """Once for each cause: it holds for the whole disk."""
    say(f"warning: {what} ({error})")


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder: a rename is only then safe. A disk that cannot is said."""
    with _opened(folder, os.O_RDONLY) as descriptor:
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            _warn("this disk cannot sync folders: a power failure may undo the last checkpoint", error.strerror)


def lock_file(descriptor: int) -> None:
    """Lock a file for this process alone. A disk that cannot lock is said.

    Raises:
        BlockingIOError: another process has it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        _warn("this disk cannot lock files: start no second process in the folder", error.strerror)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Context manager: any other process that asks for the same folder, which must exist, waits.

    On a file system that cannot lock a folder (NFS), no process waits.
    """
    with _opened(folder, os.O_RDONLY) as descriptor:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
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
