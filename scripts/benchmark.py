"""The same program as `wn-rl bench`, for a checkout that is not installed as a command."""

import sys

from wn_rl.cli import main

main(["bench", *sys.argv[1:]])
