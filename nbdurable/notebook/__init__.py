"""The IPython extension: a cell put inside its run, the commands, displays, interrupts."""
