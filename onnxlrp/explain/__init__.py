"""Data in, pictures out. Start at images.py: `explain_images`."""
