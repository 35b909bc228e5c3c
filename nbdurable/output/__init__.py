"""Each step's prints and displays, kept apart, saved, and shown where they belong."""
