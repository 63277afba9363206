"""Benchmarks: each section measures one claim of docs/benchmarks.md and gives rows of plain data."""
