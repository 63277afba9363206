"""Torch layers, their initialization and the networks built from them. Imports torch alone."""
