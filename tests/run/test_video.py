import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from wn_rl.errors import UserError
from wn_rl.run.video import VideoWriter


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
    with VideoWriter(path, 15) as video:
        for number in range(12):
            video.append(picture(*size, number))
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
    with VideoWriter(path, 15) as video:
        for image in pictures:
            video.append(image)


def test_no_other_kind_of_file_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"game\.gif does not end with \.mp4"):
        write(tmp_path / "game.gif", [picture(10, 10)])
    assert os.listdir(tmp_path) == []


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


@pytest.mark.parametrize(
    "bad",
    [np.zeros((10, 10, 3)), np.zeros((10, 10), np.uint8), np.zeros((12, 10, 3), np.uint8)],
    ids=["float", "grey", "larger"],
)
def test_pictures_of_another_shape_are_refused(tmp_path: Path, bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a picture is"):
        write(tmp_path / "game.mp4", [picture(10, 10), bad])
    assert os.listdir(tmp_path) == []


def test_no_picture_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no picture"):
        write(tmp_path / "game.mp4", [])


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
