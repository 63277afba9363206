"""The subcommands of `wn-rl`: each module is one, a frozen dataclass of its flags and `run`."""
