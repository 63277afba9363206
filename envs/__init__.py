"""Environment suites: Atari, MinAtar and Gymnasium's classic control. No torch here."""
