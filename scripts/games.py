"""The same program as `wn-rl games`, for a checkout that is not installed as a command."""

import sys

from wn_rl.cli import main

main(["games", *sys.argv[1:]])
