"""One run in one folder, which survives a kill at any moment."""
