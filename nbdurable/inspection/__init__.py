"""A store, asked and put in order from outside a run."""
