"""The whole folder of an exported agent: weights, ONNX file, learning curve and model card."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from wn_rl.errors import UserError
from wn_rl.export.agent import CONFIG, WEIGHTS, Agent, read_agent, write_agent
from wn_rl.export.card import CARD, CURVE, ONNX, Score, card_text
from wn_rl.export.onnx import require_onnx, write_onnx
from wn_rl.plots import plot_learning_curves
from wn_rl.run.files import replace_file, sync_folder

FILES = (CARD, CONFIG, CURVE, ONNX, WEIGHTS)


def export(
    agent: Agent,
    folder: Path,
    *,
    scores: Sequence[Score] = (),
    curve_of: Path | None = None,
    onnx: bool = True,
) -> None:
    """Write the agent into a new folder, at once: it is there whole or not at all.

    scores: for the model card. curve_of: a run whose learning curve is drawn. onnx: whether to write it.

    Raises:
        UserError: the folder has something in it, the network cannot be exported, or packages are missing.
    """
    if onnx:
        require_onnx()
    with _new_folder(folder) as temporary:
        write_agent(agent, temporary)
        written = read_agent(temporary)
        if onnx:
            write_onnx(written, temporary / ONNX)
        if curve_of is not None:
            plot_learning_curves([curve_of], temporary / CURVE)
        files = [name for name in FILES if name == CARD or (temporary / name).exists()]
        replace_file(temporary / CARD, card_text(written, scores, files).encode())


def exported_files(folder: Path) -> list[str]:
    """The names of an exported agent's files. UserError unless the agent can be read from them."""
    read_agent(folder)
    return [name for name in FILES if (folder / name).exists()]


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A folder beside it to write into, which becomes it at the end, or goes if there is an error."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} is not empty: choose a new folder")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        os.replace(temporary, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
