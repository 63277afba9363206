"""The same program as `wn-rl play`, for a checkout that is not installed as a command."""

import sys

from wn_rl.cli import main

main(["play", *sys.argv[1:]])
