"""Shared set-up: one torch thread a test process, no network, nothing written outside the test's folder."""

import os
import sys
from pathlib import Path

import hypothesis
import pytest
import torch

os.environ.setdefault("WANDB_MODE", "offline")
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read where a kernel is defined: it then runs on a CPU, by numpy
torch.set_num_threads(1)
hypothesis.settings.register_profile("loaded machine", deadline=None)
hypothesis.settings.load_profile("loaded machine")


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B's folders and process, and the working directory, are the test's own."""
    if "wandb" in sys.modules:  # it keeps the settings, and the process, of a test before
        sys.modules["wandb"].teardown()
    for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb-home"))
    monkeypatch.delenv("WN_RL_IMPORT", raising=False)  # which a command sets for those it starts
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `cuda` need a device."""
    if not torch.cuda.is_available():
        for item in items:
            if "cuda" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))
