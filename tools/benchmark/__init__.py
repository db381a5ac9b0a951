"""What `tools/bench.py` is made of: models, the processes that are timed, results, and their page."""
