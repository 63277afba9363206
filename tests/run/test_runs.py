import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from wn_rl.errors import UserError
from wn_rl.run.files import append_line, replace_file
from wn_rl.run.folder import RunFolder, default_name, write_json

HOLD_LOCK = """
import sys, time
from pathlib import Path
from wn_rl.run.folder import RunFolder
with RunFolder(Path(sys.argv[1])).lock():
    print("locked", flush=True)
    time.sleep(60)
"""


def test_names_carry_time_and_settings_and_do_not_collide(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        name = default_name("minatar", "breakout", "weight_norm", 1, parent=tmp_path)
        (tmp_path / name).mkdir()
        names.append(name)
    assert len(set(names)) == 3
    for name in names:
        assert re.fullmatch(r"\d{8}-\d{6}-minatar-breakout-weight_norm-seed1(-\d)?", name)


def test_a_folder_that_is_new_or_empty_can_be_used(tmp_path: Path) -> None:
    RunFolder(tmp_path / "new").require_new()
    (tmp_path / "empty").mkdir()
    RunFolder(tmp_path / "empty").require_new()
    with RunFolder(tmp_path / "killed").lock():
        pass
    RunFolder(tmp_path / "killed").require_new()  # a run was killed before it wrote anything


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    write_json(run.config_file, {})
    with pytest.raises(UserError, match=re.escape(f"`wn-rl resume {run.path}`")):
        run.require_new()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is not empty"):
        RunFolder(tmp_path).require_new()
    with pytest.raises(UserError, match="is a file"):
        RunFolder(tmp_path / "file").require_new()
    with pytest.raises(UserError, match="could not be made"), RunFolder(tmp_path / "file" / "run").lock():
        pass


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    first = subprocess.Popen([sys.executable, "-c", HOLD_LOCK, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == "locked\n"
            with pytest.raises(UserError, match=f"in use by another run \\(process {first.pid}\\)"):
                RunFolder(tmp_path).lock().__enter__()
        finally:
            os.kill(first.pid, signal.SIGKILL)
    with RunFolder(tmp_path).lock(), pytest.raises(UserError, match=f"process {os.getpid()}"):
        RunFolder(tmp_path).lock().__enter__()
    with RunFolder(tmp_path).lock():
        pass


def test_config_and_status_are_json(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "a" / "run")
    write_json(run.config_file, {"config": {"seed": 1}})
    assert run.read_config() == {"config": {"seed": 1}}
    run.write_status("running", 0)
    run.write_status("interrupted", 120, "stopped")
    assert json.loads(run.status_file.read_text()) == {"status": "interrupted", "step": 120, "message": "stopped"}
    assert sorted(path.name for path in run.path.iterdir()) == ["config.json", "status.json"]


def test_a_run_that_is_not_there_or_damaged(tmp_path: Path) -> None:
    write_json(RunFolder(tmp_path / "breakout-1").config_file, {})
    with pytest.raises(UserError, match=r"no run in .*breakout-2; did you mean breakout-1\?$"):
        RunFolder(tmp_path / "breakout-2").read_config()
    with pytest.raises(UserError, match=r"no run in [^;]*$"):
        RunFolder(tmp_path / "zzz").read_config()
    for text in ("{", "[]", "\xff"):
        RunFolder(tmp_path / "breakout-1").config_file.write_text(text, encoding="latin-1")
        with pytest.raises(UserError, match="is damaged"):
            RunFolder(tmp_path / "breakout-1").read_config()


@pytest.mark.parametrize("operation", ["write", "fsync", "replace"])
def test_a_file_that_cannot_be_replaced_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    path = tmp_path / "config.json"
    write_json(path, "old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, operation, fail)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, b"new")
    assert json.loads(path.read_text()) == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.json"]


def test_a_line_is_added_after_one_that_was_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    append_line(file, "first")
    with file.open("a") as open_file:
        open_file.write("cut o")
    append_line(file, "second")
    assert file.read_text() == "first\ncut o\nsecond\n"
