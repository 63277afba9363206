"""Pictures to an mp4 file that every browser plays, by the ffmpeg that imageio-ffmpeg brings along."""

import contextlib
import os
import subprocess
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from wn_rl.errors import UserError

MIN_SIDE = 160  # pixels; smaller pictures are enlarged by a whole factor


def ffmpeg_path() -> str:
    """The ffmpeg program.

    Raises:
        UserError: there is none.
    """
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise UserError(
            "videos need ffmpeg, and there is none: install it, or name it in the variable IMAGEIO_FFMPEG_EXE"
        ) from error


class VideoWriter:
    """Writes an mp4 file: `with VideoWriter(path, fps) as video: video.append(picture)`.

    The file is put in place at the end of the block. If the block raises, there is none.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path = path
        self.fps = fps
        self._temporary = path.with_name(f".{path.stem}.{os.getpid()}.mp4")
        self._shape: tuple[int, ...] | None = None
        self._ffmpeg: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "VideoWriter":
        """UserError, before a game is played for nothing, if the file cannot be there."""
        if self.path.is_dir():
            raise UserError(f"{self.path} is a folder: name the video file")
        if self.path.suffix != ".mp4":
            raise UserError(f"{self.path} does not end with .mp4, and no other video is written")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"no folder can be made for {self.path}: {error.strerror}") from error
        return self

    def append(self, picture: NDArray[np.uint8]) -> None:
        """Add one picture, RGB uint8 [H, W, 3], all of one size.

        Raises:
            ValueError: it has another shape or type.
            OSError: ffmpeg failed, on a full disk for example.
        """
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(f"a picture is uint8 [H, W, 3], not {picture.dtype} {list(picture.shape)}")
        if self._shape is None:
            self._shape = picture.shape
        if picture.shape != self._shape:
            raise ValueError(f"a picture is {list(picture.shape)}, those before it {list(self._shape)}")
        frame = _for_encoder(picture)
        if self._ffmpeg is None:
            self._ffmpeg = self._start(frame.shape[0], frame.shape[1])
        assert self._ffmpeg.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._ffmpeg.stdin.write(frame.tobytes())
            return
        self._finish(self._ffmpeg)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None:
                self._kill()
            elif self._ffmpeg is None:
                raise ValueError(f"{self.path} would have no picture")
            else:
                self._finish(self._ffmpeg)
                os.replace(self._temporary, self.path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary)

    def _start(self, height: int, width: int) -> "subprocess.Popen[bytes]":
        given = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {self.fps} -i -"
        wanted = "-c:v libx264 -pix_fmt yuv420p -crf 20 -movflags +faststart"
        flags = f"-loglevel error -xerror -y {given} {wanted}".split()
        return subprocess.Popen(
            [ffmpeg_path(), *flags, str(self._temporary)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the run, which then ends the video in order
        )

    def _finish(self, ffmpeg: "subprocess.Popen[bytes]") -> None:
        """Let ffmpeg end; OSError with its last words if it could not."""
        _, complaints = ffmpeg.communicate()
        if ffmpeg.returncode != 0:
            lines = complaints.decode(errors="replace").strip().splitlines() or ["ffmpeg stopped"]
            raise OSError(f"{self.path} could not be written: {lines[-1]}")

    def _kill(self) -> None:
        if self._ffmpeg is not None and self._ffmpeg.poll() is None:
            self._ffmpeg.kill()
            self._ffmpeg.communicate()


def _for_encoder(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Enlarged to MIN_SIDE, and with even sides, which yuv420p needs."""
    factor = -(-MIN_SIDE // min(picture.shape[:2]))
    large = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    return np.pad(large, ((0, large.shape[0] % 2), (0, large.shape[1] % 2), (0, 0)), mode="edge")
