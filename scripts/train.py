"""The same program as `wn-rl train`, for a checkout that is not installed as a command."""

import sys

from wn_rl.cli import main

main(["train", *sys.argv[1:]])
