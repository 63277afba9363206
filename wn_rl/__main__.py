"""`python -m wn_rl` is the command `wn-rl`."""

from wn_rl.cli import main

if __name__ == "__main__":
    main()
