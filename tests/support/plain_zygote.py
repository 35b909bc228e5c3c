"""A process that forks itself for each pass through a notebook of plain cells.

Speaks JSON lines: a request on standard input; on standard output a line when the child has
ended. What the child saw of each cell it wrote into a file, so that a child that killed itself
has told all up to then.
"""

import io
import json
import os
import random
import signal
import sys
from pathlib import Path

import duckdb  # noqa: F401 - loaded before forking
import numpy as np
import pandas as pd  # noqa: F401 - loaded before forking
from IPython.core.interactiveshell import InteractiveShell

from nbdurable.api import open_stores
from nbdurable.notebook import commands, extension, plain_cells  # noqa: F401 - likewise
from nbdurable.store import check, database  # noqa: F401 - loaded before forking

sys.path.insert(0, str(Path(__file__).parent))
from plain_state import around, described, links


def main():
    """Serve requests until there are no more."""
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            try:
                serve(request)
            finally:
                os._exit(70)
        _, status = os.waitpid(child, 0)
        print(json.dumps({"status": status}), flush=True)


def serve(request):
    """Run one pass."""
    told = open(request["told"], "w", encoding="utf-8")  # noqa: PTH123, SIM115 - until the process ends
    os.chdir(request["folder"])
    os.environ |= request["env"]
    random.seed()
    np.random.seed()  # noqa: NPY002 - as a kernel begins
    seen = io.StringIO()
    sys.stdout = sys.stderr = seen
    InteractiveShell.enable_gui = lambda self, gui=None: None  # there is no front end
    shell = InteractiveShell.instance(colors="nocolor")
    sys.modules["__main__"] = shell.user_module
    outcomes = []
    watch(outcomes)
    if request["mode"] != "plain":
        shell.run_cell("%load_ext nbdurable")
    if request["mode"] not in {"plain", "loaded"}:
        shell.run_cell(f"%durable auto {request['mode'].removeprefix('auto')}")
    for at, source in enumerate(request["cells"]):
        seen.seek(0)
        seen.truncate()
        outcomes.clear()
        before = state(shell) if request["trace"] else None
        result = shell.run_cell(source, store_history=True)
        error = result.error_before_exec or result.error_in_exec
        cell = {
            "at": at,
            "error": f"{type(error).__name__}: {error}" if error is not None else "",
            "shown": seen.getvalue(),
            "outcome": outcomes[-1] if outcomes else None,
            "before": before,
        }
        print(json.dumps(cell), file=told, flush=True)
        if request["settle"] or at == len(request["cells"]) - 1:
            settle()
        if at == request["kill_after"]:
            os.kill(os.getpid(), signal.SIGKILL)
    last = {
        **state(shell),
        "out": {str(n): described(value) for n, value in shell.user_ns["Out"].items()},
    }
    print(json.dumps(last), file=told, flush=True)
    if request["end"] == "exit":
        extension.unload(shell)
        open_stores.close_stores()
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


def state(shell):
    """Write out the names of the notebook and what is around."""
    space = {
        name: value
        for name, value in shell.user_ns.items()
        if not name.startswith("_") and name not in shell.user_ns_hidden
    }
    return {
        "values": {name: described(value) for name, value in space.items()},
        "links": links(space),
        "around": around(),
    }


def settle():
    """Wait until what was saved is written."""
    for held in list(open_stores._state.opens.values()):
        held.store.journal.flush()


def watch(outcomes):
    """Note what becomes of each cell."""
    handle = plain_cells.PlainCells.handle

    async def noted(self, request):
        outcome = await handle(self, request)
        outcomes.append(
            {
                name: getattr(outcome, name)
                for name in ("raised", "restored", "why", "unsaved", "defines", "differs")
            }
        )
        return outcome

    plain_cells.PlainCells.handle = noted


if __name__ == "__main__":
    main()
