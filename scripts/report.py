"""The same program as `wn-rl report`, for a checkout that is not installed as a command."""

import sys

from wn_rl.cli import main

main(["report", *sys.argv[1:]])
