"""The list of what a checkpoint consists of, with a digest of every part and of itself."""

import dataclasses
import json
from typing import Any

from wn_rl.run.files import sha256
from wn_rl.run.segments import Segment

FORMAT = 1


class DamagedError(Exception):
    """A checkpoint is not what was written, or not by this version; the one before it may be."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A checkpoint's parts.

    files: {name: SHA-256}. segments: those with rows of [oldest_row, stop_row), in order, without gaps.
    """

    step: int
    identity: dict[str, Any]
    files: dict[str, str]
    oldest_row: int
    segments: tuple[Segment, ...]

    @property
    def stop_row(self) -> int:
        """Rows ever added to the replay."""
        return self.segments[-1].stop if self.segments else 0

    def to_bytes(self) -> bytes:
        """The manifest as JSON."""
        body = {"format": FORMAT, **dataclasses.asdict(self)}
        return json.dumps({**body, "sha256": _digest(body)}, indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """The manifest that `to_bytes` wrote.

        Raises:
            DamagedError: it is another, or none.
        """
        try:
            body = json.loads(data)
            digest = body.pop("sha256")
            if _digest(body) != digest:
                raise DamagedError("its manifest does not match its digest")
            version = body.pop("format")
            if version != FORMAT:
                raise DamagedError(f"it has format {version}, and this version of wn-rl reads {FORMAT}")
            segments = tuple(Segment(**segment) for segment in body.pop("segments"))
            return cls(**body, segments=segments)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedError("its manifest cannot be read") from error


def _digest(body: dict[str, Any]) -> str:
    return sha256(json.dumps(body, sort_keys=True).encode())
