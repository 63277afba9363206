"""The same program as `wn-rl compare`, for a checkout that is not installed as a command."""

import sys

from wn_rl.cli import main

main(["compare", *sys.argv[1:]])
