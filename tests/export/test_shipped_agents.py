"""The trained agents in results/agents are small, and play."""

import math
import re
import shutil
from pathlib import Path

import pytest
from run_tools import wn_rl

AGENTS = sorted((Path(__file__).parents[2] / "results" / "agents").glob("*/"))


@pytest.mark.parametrize("agent", AGENTS, ids=lambda path: path.name)
def test_a_shipped_agent_is_small_and_plays(agent: Path, tmp_path: Path) -> None:
    assert sum(file.stat().st_size for file in agent.iterdir()) < 1e6
    assert wn_rl("play", str(agent), "--video", str(tmp_path / "game.mp4")) == 0
    assert (tmp_path / "game.mp4").stat().st_size > 0


def test_a_shipped_agent_plays_as_its_card_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To three standard errors: on another processor a rounded Q-value may end a game otherwise."""
    breakout = tmp_path / "breakout"
    shutil.copytree(AGENTS[0].parent / "minatar-breakout", breakout)  # a test is written down in the folder
    assert wn_rl("evaluate", str(breakout)) == 0
    row = re.search(r"\| nature \| 0.05 \| 30 \| ([\d.]+) \| ([\d.]+) \|", (breakout / "README.md").read_text())
    played = re.search(r"([\d.]+) mean raw return of 30 episodes", capsys.readouterr().out)
    assert row is not None
    assert played is not None
    assert float(played[1]) == pytest.approx(float(row[1]), abs=3 * float(row[2]) / math.sqrt(30))
