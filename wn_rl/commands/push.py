"""`wn-rl push`: upload an exported agent to the Hugging Face hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from wn_rl.commands._shared import parse_flags


@dataclass(frozen=True)
class Push:
    """Upload an exported agent to the Hugging Face hub (log in first: hf auth login)."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """What `wn-rl export` wrote."""
    repo_id: str
    """The repository, owner/name; it is created if it does not exist."""
    private: bool = False
    """Make a new repository private."""
    dry_run: bool = False
    """Only list what would be uploaded."""


def run(arguments: Sequence[str]) -> int:
    """`wn-rl push`."""
    options = parse_flags(Push, arguments)
    from wn_rl.export import exported_files, push
    from wn_rl.export.hub import require_repo_id

    require_repo_id(options.repo_id)
    files = exported_files(options.folder)
    if not options.dry_run:
        print(push(options.folder, files, options.repo_id, private=options.private))
        return 0
    print(f"would upload to {options.repo_id}:")
    for name in files:
        print(f"  {(options.folder / name).stat().st_size:>12,} bytes  {name}")
    return 0
