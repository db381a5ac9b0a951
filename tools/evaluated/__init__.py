"""What tools/evaluation.py measures, and how its page is written."""
