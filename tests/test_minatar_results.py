"""The MinAtar table of docs/results.md, made again: nine runs, about an hour on one core. `make test-slow`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

# Means over three seeds of the last 100 training games after 500k steps; a random policy has 0.5, 0.1 and 3.
LEAST = {"breakout": 6.0, "seaquest": 0.8, "space_invaders": 22.0}


@pytest.mark.slow
def test_the_minatar_table_can_be_made_again(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "scripts" / "reproduce_minatar.py"
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=True)
    means = {
        game: float(mean)
        for game, mean in re.findall(r"^\| (\w+) \| 500,000 \|.*\| ([\d.]+) \|$", done.stdout, re.M)
    }
    assert means.keys() == LEAST.keys()
    for game, least in LEAST.items():
        assert means[game] > least, means
