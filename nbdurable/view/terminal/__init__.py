"""A run in a terminal: drawn, and kept below what is printed."""
