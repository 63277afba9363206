"""Checkpoints that survive a kill at any instant, a full disk and flipped bits.

    checkpoints/step_000000250000/   state.json  tensors.safetensors  manifest.json
    checkpoints/step_000000500000/   the last two are kept
    checkpoints/replay/              rows_000000000000.safetensors ...  (see segments.py)

A checkpoint is written to a hidden folder, each file is synced, and the folder is renamed: it is there whole
or not at all. Its manifest has the digest of every file, of every replay segment it needs, and of itself.
The next save removes what a failed save leaves behind.
"""

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from wn_rl.agents.replay import Replay
from wn_rl.errors import UserError, refusing
from wn_rl.run.files import MAX_TENSORS, parse_json, read_file, require_form, sha256, sync_folder, write_synced
from wn_rl.run.segments import Segment, read_segments, write_segments
from wn_rl.run.sinks import Report
from wn_rl.run.tensor_files import STRUCTURE_FILE, TENSORS_FILE, StateError, difference_of_identity, pack, unpack

FORMAT = 1
KEPT = 2  # checkpoints

_FOLDER_NAME = re.compile(r"step_(\d{12})(?:-(\d+))?")
_MANIFEST_FILE = "manifest.json"
_TEMPORARY = ".writing"
_DROPPED = ".dropped"
_OWN_FILE = re.compile(r"rows_\d{12}\.safetensors|manifest\.json|state\.json|tensors\.safetensors")
_FORM = {
    **{"format": int, "step": int, "identity": dict, "files": {STRUCTURE_FILE: str, TENSORS_FILE: str}},
    **{"oldest_row": int, "segments": [{"name": str, "first": int, "stop": int, "sha256": str}]},
}


class DamagedError(Exception):
    """A checkpoint is not what was written, or not by this version; the one before it may be."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A checkpoint's parts.

    files: {name: SHA-256}. segments: those with rows from oldest_row on, in order, without gaps.
    """

    step: int
    identity: dict[str, Any]
    files: dict[str, str]
    oldest_row: int
    segments: tuple[Segment, ...]

    def to_bytes(self) -> bytes:
        """The manifest as JSON."""
        body = {"format": FORMAT, **dataclasses.asdict(self)}
        return json.dumps({**body, "sha256": _digest(body)}, indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """The manifest that `to_bytes` wrote. DamagedError if it is another, or could not be read."""
        with refusing("its manifest could not be read", DamagedError):
            body = parse_json(data)
            require_form(body, {"sha256": str, "format": int})
            if body.pop("sha256") != _digest(body):
                raise DamagedError("its manifest does not match its digest")
            if body["format"] != FORMAT:
                raise DamagedError(f"it has format {body['format']}, and this version of wn-rl reads {FORMAT}")
            require_form(body, _FORM)
            del body["format"]
            segments = tuple(Segment(**segment) for segment in body.pop("segments"))
            if not all(map(_OWN_FILE.fullmatch, (*body["files"], *(segment.name for segment in segments)))):
                raise DamagedError("its manifest names files of others")
            return cls(**body, segments=segments)


def _digest(body: dict[str, Any]) -> str:
    return sha256(json.dumps(body, sort_keys=True).encode())


class CheckpointError(UserError):
    """A checkpoint could not be saved or used."""


class CheckpointStore:
    """The checkpoints of one run. One process at a time uses it: the caller holds the run's lock.

    identity: plain JSON values that a checkpoint must share with the run to be loaded into it (game,
    architecture). If there are checkpoints already, call `load` before the first `save`.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self._identity: dict[str, Any] = json.loads(json.dumps(dict(identity)))
        self._replay_folder = folder / "replay"
        self._kept: dict[Path, Manifest] = {}  # oldest first, the checkpoints that later saves build on

    @property
    def has_replay(self) -> bool:
        """Whether the replay is there. Without it a checkpoint can be evaluated and played, not trained on."""
        return self._replay_folder.is_dir()

    def replay_bytes(self) -> int:
        """What the replay takes on the disk; 0 without one."""
        return sum(file.stat().st_size for file in self._replay_folder.glob("rows_*"))

    def save(self, step: int, state: Any, replay: Replay) -> None:
        """Write a checkpoint: the state, and the rows of the replay that no earlier checkpoint has.

        Raises:
            CheckpointError: it could not be written (a full disk, say); the earlier ones are whole.
            StateError: the state is not plain data.
        """
        if not self._kept and self._folders():
            raise CheckpointError(f"{self.folder} has checkpoints already: load one before saving another")
        if not self.has_replay:  # all of it was removed while the run went on
            self._kept = {}
        files = pack(state)
        target = self._new_folder(step)
        try:
            self._make_folders()
            self._remove_orphans()
            self._kept = dict([*self._kept.items(), (target, self._write(target, step, files, replay))][-KEPT:])
        except OSError as error:
            _remove(target)
            self._remove_orphans()
            raise CheckpointError(
                f"the checkpoint of step {step:,} could not be written to {self.folder}: {error}"
            ) from error
        self._remove_orphans()

    def load(self, replay: Replay, report: Report) -> tuple[int, Any] | None:
        """Fill the replay from the newest whole checkpoint and return its step and state; None without any.

        Raises:
            CheckpointError: every checkpoint is damaged, the newest belongs to another run, or the replay
                was dropped when the run ended.
        """
        found = self._newest_whole(report, with_replay=True)
        if found is None:
            return None
        folder, manifest, state = found
        read_segments(self._replay_folder, manifest.segments, manifest.oldest_row, replay)
        self._kept = dict([*self._readable_before(folder), (folder, manifest)][-KEPT:])
        return manifest.step, state

    def load_state(self, report: Report) -> tuple[int, Any] | None:
        """The step and state of the newest whole checkpoint, without its replay; None without any.

        Raises:
            CheckpointError: every checkpoint is damaged, or the newest belongs to another run.
        """
        found = self._newest_whole(report, with_replay=False)
        return None if found is None else (found[1].step, found[2])

    def drop_replay(self) -> None:
        """Free the disk of a finished run's replay. Its checkpoints stay, to be evaluated and played."""
        dropped = self.folder / _DROPPED
        if self.has_replay:
            _remove(dropped)
            os.replace(self._replay_folder, dropped)  # at once, so that no damage is seen after a kill
            sync_folder(self.folder)
        _remove(dropped)

    def _folders(self) -> list[Path]:
        """The checkpoints on disk, oldest first."""
        if not self.folder.is_dir():
            return []
        matches = [match for path in self.folder.iterdir() if (match := _FOLDER_NAME.fullmatch(path.name))]
        matches.sort(key=lambda match: (int(match[1]), int(match[2] or 0)))
        return [self.folder / match[0] for match in matches]

    def _new_folder(self, step: int) -> Path:
        """A name after those of all copies of the step: a resumed run that stops at once saves it again."""
        name = f"step_{step:012d}"
        copies = [path.name for path in self._folders() if path.name.startswith(name)]
        number = int(copies[-1].partition("-")[2] or 0) + 1 if copies else 0
        return self.folder / (f"{name}-{number}" if copies else name)

    def _make_folders(self) -> None:
        if not self.has_replay:
            self._replay_folder.mkdir(parents=True, exist_ok=True)
            sync_folder(self.folder)
            sync_folder(self.folder.parent)

    def _write(self, target: Path, step: int, files: dict[str, bytes], replay: Replay) -> Manifest:
        before = list(self._kept.values())[-1].segments if self._kept else ()
        start = max(before[-1].stop if before else 0, replay.oldest_row)
        old = [segment for segment in before if segment.stop > replay.oldest_row]
        new = write_segments(self._replay_folder, replay, start)
        digests = {name: sha256(data) for name, data in files.items()}
        manifest = Manifest(step, self._identity, digests, replay.oldest_row, (*old, *new))
        temporary = self.folder / _TEMPORARY
        os.mkdir(temporary)
        for name, data in {**files, _MANIFEST_FILE: manifest.to_bytes()}.items():
            write_synced(temporary / name, data)
        sync_folder(temporary)
        os.rename(temporary, target)
        sync_folder(self.folder)
        return manifest

    def _remove_orphans(self) -> None:
        """Remove what no kept checkpoint needs. What could not be removed, the next save tries again."""
        for path in (*self._folders(), self.folder / _TEMPORARY, self.folder / _DROPPED):
            if path not in self._kept:
                _remove(path)
        segments = {segment.name for manifest in self._kept.values() for segment in manifest.segments}
        _remove(self._replay_folder, besides=segments)

    def _newest_whole(self, report: Report, *, with_replay: bool) -> tuple[Path, Manifest, Any] | None:
        folders = self._folders()[::-1]
        for folder in folders:
            try:
                manifest = _read_manifest(folder)
                self._check_identity(manifest, folder)
                state = _read_state(folder, manifest)
                if with_replay:
                    self._check_replay(manifest)
                return folder, manifest, state
            except (DamagedError, StateError, OSError) as error:
                report(f"warning: the checkpoint {folder} is not used: {error}")
        if folders:
            raise CheckpointError(f"no checkpoint in {self.folder} can be used: each one is damaged")
        return None

    def _check_identity(self, manifest: Manifest, folder: Path) -> None:
        difference = difference_of_identity(manifest.identity, self._identity)
        if difference:
            raise CheckpointError(f"the checkpoint {folder} {difference}")

    def _check_replay(self, manifest: Manifest) -> None:
        if not self.has_replay:
            raise CheckpointError(
                f"the run in {self.folder.parent} ended and dropped its replay: it can be evaluated and "
                "played, not trained further (train with --keep-replay to leave that open)"
            )
        for segment in manifest.segments:
            if not segment.is_whole(self._replay_folder):
                raise DamagedError(f"its replay file {segment.name} does not match its digest")

    def _readable_before(self, loaded: Path) -> list[tuple[Path, Manifest]]:
        """The checkpoints before one that could still be loaded, as far as their manifests show."""
        folders = self._folders()
        readable = []
        for folder in folders[: folders.index(loaded)]:
            with contextlib.suppress(DamagedError, OSError):
                readable.append((folder, _read_manifest(folder)))
        return readable


def _remove(folder: Path, besides: Container[str] | None = None) -> None:
    """Delete what bears a name of ours, and the folder where nothing is to be left; a link is left alone."""
    with contextlib.suppress(OSError):
        for path in [] if folder.is_symlink() else folder.iterdir():
            if path.name not in (besides or ()) and _OWN_FILE.fullmatch(path.name):
                with contextlib.suppress(OSError):
                    (os.rmdir if path.is_dir() and not path.is_symlink() else os.unlink)(path)
        if besides is None:
            os.rmdir(folder)


def _read_manifest(folder: Path) -> Manifest:
    return Manifest.from_bytes(read_file(folder / _MANIFEST_FILE))


def _read_state(folder: Path, manifest: Manifest) -> Any:
    files = {name: read_file(folder / name, MAX_TENSORS) for name in manifest.files}
    for name, data in files.items():
        if sha256(data) != manifest.files[name]:
            raise DamagedError(f"its file {name} does not match its digest")
    return unpack(files)
