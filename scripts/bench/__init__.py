"""What scripts/benchmark.py measures, how it measures, and the page that it writes."""
