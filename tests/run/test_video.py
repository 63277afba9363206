import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from wn_rl.errors import UserError
from wn_rl.run.video import video_writer


def picture(height: int, width: int, number: int = 0) -> np.ndarray:
    """The left half red, the right half brighter with the number."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2, 0] = 200
    image[:, width // 2 :] = 20 * number
    return image


def read(path: Path) -> tuple[dict[str, object], list[np.ndarray]]:
    frames = imageio_ffmpeg.read_frames(str(path))
    about = next(frames)
    width, height = about["size"]
    return about, [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in frames]


# imageio-ffmpeg's reader leaves its pipes to the garbage collector.
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed file:ResourceWarning"
)
@pytest.mark.parametrize(
    ("size", "expected"), [((210, 160), (160, 210)), ((10, 10), (160, 160)), ((161, 201), (202, 162))]
)
def test_a_video_reads_back(tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]) -> None:
    path = tmp_path / "videos" / "game.mp4"
    with video_writer(path, 15) as append:
        for number in range(12):
            append(picture(*size, number))
        assert not path.exists()
    about, frames = read(path)
    assert about["size"] == expected
    assert about["fps"] == 15
    assert str(about["pix_fmt"]).startswith("yuv420p")
    assert len(frames) == 12
    for number, frame in enumerate(frames):
        height, width = frame.shape[:2]
        assert np.abs(frame[height // 2, width // 4].astype(int) - [200, 0, 0]).max() < 25
        assert np.abs(frame[height // 2, 3 * width // 4].astype(int) - 20 * number).max() < 25
    assert [entry.name for entry in path.parent.iterdir()] == ["game.mp4"]


def write(path: Path, pictures: Iterable[np.ndarray]) -> None:
    with video_writer(path, 15) as append:
        for image in pictures:
            append(image)


def test_a_block_that_raises_leaves_the_old_file(tmp_path: Path) -> None:
    def interrupted() -> Iterator[np.ndarray]:
        yield picture(10, 10)
        raise KeyboardInterrupt

    path = tmp_path / "game.mp4"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        write(path, interrupted())
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["game.mp4"]


RIGHT = np.zeros((10, 10, 3), np.uint8)


@pytest.mark.parametrize(
    ("name", "pictures", "says"),
    [
        ("game.gif", [RIGHT], r"game\.gif does not end with \.mp4"),
        ("game.mp4", [], "no picture"),
        ("game.mp4", [RIGHT, RIGHT.astype(float)], "a picture is"),
        ("game.mp4", [RIGHT, RIGHT[..., 0]], "a picture is"),
        ("game.mp4", [RIGHT, np.zeros((12, 10, 3), np.uint8)], "a picture is"),
    ],
    ids=["gif", "none", "float", "grey", "larger"],
)
def test_what_is_no_video_is_refused(tmp_path: Path, name: str, pictures: list[np.ndarray], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        write(tmp_path / name, pictures)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("num_pictures", [1, 300])  # ffmpeg has ended before the block, or within it
def test_what_ffmpeg_cannot_write_is_an_error(tmp_path: Path, num_pictures: int) -> None:
    path = tmp_path / "game.mp4"
    (tmp_path / f".game.{os.getpid()}.mp4").mkdir()  # in the place of ffmpeg's file
    with pytest.raises(OSError, match=r"game\.mp4 could not be written: .*Is a directory"):
        write(path, [picture(210, 160)] * num_pictures)
    assert not path.exists()


def test_without_ffmpeg_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", missing)
    with pytest.raises(UserError, match="install it"):
        write(tmp_path / "game.mp4", [picture(10, 10)])
    assert os.listdir(tmp_path) == []
