"""Many runs: the grid as data, and where they run."""
