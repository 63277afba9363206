"""The four games, both parameterizations, through the command line. Minutes long: `make test-slow`."""

import json
import math
from pathlib import Path

import pytest
from run_tools import rows_of, wn_rl

GAMES = ("breakout", "enduro", "seaquest", "space_invaders")
SHORT = [
    "--preset", "laptop", "--device", "cpu", "--steps", "3000", "--learning.replay-start", "800",
    "--learning.replay-capacity", "4000", "--evaluation.period", "1500", "--evaluation.steps", "400",
    "--environment.max-episode-frames", "4000", "--log-period", "500", "--checkpoint-period", "1000",
    "--evaluation.video-period", "0", "--track", "jsonl", "--keep-replay",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("parameterization", ["normal", "weight_norm"])
@pytest.mark.parametrize("game", GAMES)
def test_each_game_trains_evaluates_resumes_and_plays(game: str, parameterization: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert wn_rl("train", game, *SHORT, "--parameterization", parameterization, "--run-dir", str(run)) == 0
    assert wn_rl("evaluate", str(run), "--episodes", "2", "--num-envs", "2") == 0
    assert wn_rl("resume", str(run), "--steps", "4000") == 0
    assert wn_rl("play", str(run), "--video", str(tmp_path / "game.mp4")) == 0
    rows = rows_of(run)
    losses = [row["loss"] for row in rows if row.get("loss") is not None]
    tests = [row for row in rows if "eval/return_mean" in row]
    assert len(losses) == 7  # rows of 1,000 to 4,000 steps
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert [row["step"] for row in tests] == [1504, 3000]
    assert all(row["eval/return_mean"] is not None and row["held_out_q"] is not None for row in tests)
    result = json.loads((run / "evaluations.jsonl").read_text())
    assert len(result["returns"]) == 2
    assert (tmp_path / "game.mp4").stat().st_size > 10_000
