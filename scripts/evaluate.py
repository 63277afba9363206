"""The same program as `wn-rl evaluate`, for a checkout that is not installed as a command."""

import sys

from wn_rl.cli import main

main(["evaluate", *sys.argv[1:]])
