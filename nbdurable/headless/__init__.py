"""Notebooks without a front end: whose store their kernels use, and `nbdurable run`."""
