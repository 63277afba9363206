"""The same program as `wn-rl tune`, for a checkout that is not installed as a command."""

import sys

from wn_rl.cli import main

main(["tune", *sys.argv[1:]])
