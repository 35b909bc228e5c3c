"""Where callables run, whatever they are: threads, loops, processes, Dask; limits, the clock."""
