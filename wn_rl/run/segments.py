"""A replay on disk: immutable files of rows, each written and hashed once, shared by several checkpoints."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import safetensors.torch

from wn_rl.agents.replay import Replay
from wn_rl.errors import refusing
from wn_rl.run.files import MAX_TENSORS, read_file, sha256, sha256_of_file, sync_folder, write_synced

SEGMENT_BYTES = 128 * 2**20  # of one file; saving and loading take about three times as much memory


@dataclasses.dataclass(frozen=True)
class Segment:
    """Rows [first, stop) in a file of the replay folder."""

    name: str
    first: int
    stop: int
    sha256: str

    def is_whole(self, folder: Path) -> bool:
        """Whether the file is there and holds what was written."""
        try:
            return sha256_of_file(folder / self.name) == self.sha256
        except OSError:
            return False


def write_segments(folder: Path, replay: Replay, start: int) -> Iterable[Segment]:
    """Write rows [start, num_rows) to new files of at most SEGMENT_BYTES.

    Raises:
        OSError: a file could not be written whole. It and those before it are left behind.
    """
    stop = replay.num_rows
    row = replay.read_rows(start, min(start + 1, stop))
    row_bytes = sum(column.numel() * column.element_size() for column in row.values())
    rows_per_segment = max(1, SEGMENT_BYTES // max(1, row_bytes))
    for first in range(start, stop, rows_per_segment):
        end = min(first + rows_per_segment, stop)
        columns = replay.read_rows(first, end)
        data = safetensors.torch.save({name: column.contiguous() for name, column in columns.items()})
        name = f"rows_{first:012d}.safetensors"
        write_synced(folder / name, data)
        yield Segment(name, first, end, sha256(data))
    sync_folder(folder)


def read_segments(folder: Path, segments: Iterable[Segment], oldest_row: int, replay: Replay) -> None:
    """Give the rows from oldest_row on to the replay. UserError: they are not rows of such a replay."""
    for segment in segments:
        with refusing(f"{folder / segment.name} cannot be used"):
            columns = safetensors.torch.load(read_file(folder / segment.name, MAX_TENSORS))
            start = max(segment.first, oldest_row)
            replay.write_rows(start, {name: column[start - segment.first :] for name, column in columns.items()})
