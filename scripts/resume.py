"""The same program as `wn-rl resume`, for a checkout that is not installed as a command."""

import sys

from wn_rl.cli import main

main(["resume", *sys.argv[1:]])
