"""A program: load the extension into an IPython shell that is already there.

``python -m tests.benchmarks.loading with|without`` prints the seconds that
``%load_ext nbdurable`` took; ``without`` does everything else, for comparison.
"""

import json
import sys
from time import perf_counter

from IPython.core.interactiveshell import InteractiveShell  # noqa: TID251 - it is the shell

from .measure import expect


def load(shell):
    """Load the extension as a cell does, and give the seconds."""
    started = perf_counter()
    shell.run_line_magic("load_ext", "nbdurable")
    seconds = perf_counter() - started
    expect("durable" in shell.magics_manager.magics["cell"], True, "%%durable is there")
    return seconds


if __name__ == "__main__":
    made = InteractiveShell.instance()
    expect(made.run_cell("1 + 1", silent=True).success, True, "a cell runs")
    expect("nbdurable" in sys.modules, False, "nbdurable is imported before it is loaded")
    seconds_taken = load(made) if sys.argv[1] == "with" else 0.0
    print(json.dumps({"load": seconds_taken}))
