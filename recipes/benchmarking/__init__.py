"""What `recipes/benchmark.py` measures, a file a benchmark."""
