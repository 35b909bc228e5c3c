"""Where callables run, whatever they are: threads, loops, limits, the clock."""
