"""The same program as `wn-rl doctor`, for a checkout that is not installed as a command."""

import sys

from wn_rl.cli import main

main(["doctor", *sys.argv[1:]])
