"""One step: its options, its attempts."""
