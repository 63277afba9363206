"""Files that survive a kill or a full disk, each written whole or not at all; and the end of a log."""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

_LOG_TAIL_BYTES = 4096


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


def write_synced(path: Path, data: bytes) -> None:
    """Make a new file and wait until the disk has it. FileExistsError if there is one of that name."""
    with _opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
        write_all(descriptor, data)
        os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder: a rename is only then safe."""
    with _opened(folder, os.O_RDONLY) as descriptor:
        os.fsync(descriptor)


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
    with path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        is_whole = file.read(1) in (b"", b"\n")
        file.write((b"" if is_whole else b"\n") + text.encode() + b"\n")


def sha256(data: bytes) -> str:
    """The digest in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """The digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def last_line(log: Path) -> str:
    """The last line of a log that is not blank; empty if it has none, or could not be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
