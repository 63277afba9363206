"""Pictures to an mp4 file that every browser plays, by the ffmpeg that comes with imageio-ffmpeg."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wn_rl.errors import UserError

MIN_SIDE = 160  # pixels; smaller pictures are enlarged by a whole factor

Picture = NDArray[np.uint8]


def ffmpeg_path() -> str:
    """The ffmpeg program. UserError: it is not available."""
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise UserError(
            "videos need ffmpeg, which is not available: install it, or name it in the variable IMAGEIO_FFMPEG_EXE"
        ) from error


@contextlib.contextmanager
def video_writer(path: Path, fps: float) -> Iterator[Callable[[Picture], None]]:
    """Context manager: a function that adds a picture, RGB uint8 [H, W, 3], to an mp4 file.

    The file is put in place at the end of the block. If the block raises, nothing is written.

    Raises:
        UserError: there can be no such file; raised before the block, so that no episode is played for nothing.
        ValueError: a picture has another type, or another shape than the first, or there was none.
        OSError: ffmpeg failed, on a full disk for example.
    """
    path = path.absolute()  # an environment may change the working directory
    _require_video_path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.mp4")
    shape: tuple[int, ...] = ()
    ffmpeg: subprocess.Popen[bytes] | None = None

    def append(picture: Picture) -> None:
        nonlocal shape, ffmpeg
        shape = shape or picture.shape
        if picture.dtype != np.uint8 or picture.shape != (*shape[:2], 3):
            raise ValueError(f"a picture is uint8 [H, W, 3] of one size, not {picture.dtype} {picture.shape}")
        frame = _enlarged(picture)
        ffmpeg = ffmpeg or _start(temporary, fps, *frame.shape[:2])
        assert ffmpeg.stdin is not None
        try:
            ffmpeg.stdin.write(frame.tobytes())
        except BrokenPipeError:
            _finish(ffmpeg, path)

    try:
        yield append
        if ffmpeg is None:
            raise ValueError(f"{path} would have no picture")
        _finish(ffmpeg, path)
        os.replace(temporary, path)
    finally:
        if ffmpeg is not None and ffmpeg.poll() is None:
            ffmpeg.kill()
            ffmpeg.communicate()
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _require_video_path(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{path} is a folder: name the video file")
    if path.suffix != ".mp4":
        raise UserError(f"{path} does not end with .mp4, and no other video is written")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder of {path} could not be made: {error.strerror}") from error


def _enlarged(picture: Picture) -> Picture:
    """At least MIN_SIDE wide and high, and with even sides, which yuv420p needs."""
    factor = -(-MIN_SIDE // min(picture.shape[:2]))
    large = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    return np.pad(large, ((0, large.shape[0] % 2), (0, large.shape[1] % 2), (0, 0)), mode="edge")


def _start(path: Path, fps: float, height: int, width: int) -> "subprocess.Popen[bytes]":
    given = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {fps} -i -"
    wanted = "-c:v libx264 -pix_fmt yuv420p -crf 20 -movflags +faststart"
    return subprocess.Popen(
        [ffmpeg_path(), *f"-loglevel error -xerror -y {given} {wanted}".split(), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the run, which then ends the video in order
    )


def _finish(ffmpeg: "subprocess.Popen[bytes]", path: Path) -> None:
    """Let ffmpeg end; OSError with its last words if it failed."""
    _, complaints = ffmpeg.communicate()
    if ffmpeg.returncode != 0:
        lines = complaints.decode(errors="replace").strip().splitlines() or ["ffmpeg stopped"]
        raise OSError(f"{path} could not be written: {lines[-1]}")
