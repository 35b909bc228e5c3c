"""One execution of a run: program order, attempts, waits, delivery, the end."""
