"""A process that forks itself for each program: a new process in 20 ms instead of a second.

Speaks JSON lines: a request on standard input, the child's ending on standard
output. Started twice with different PYTHONHASHSEED, it is the two processes of
the "always replay" fixture.
"""

import asyncio
import contextlib
import importlib
import importlib.util
import inspect
import io
import json
import os
import sys
import threading
import traceback
import types
from pathlib import Path

import duckdb  # noqa: F401 - loaded before forking

import nbdurable
from nbdurable import testing
from nbdurable.api import open_stores
from nbdurable.store import (
    check,  # noqa: F401 - loaded before forking
    database,  # noqa: F401 - loaded before forking
    structure,
)


class Shown(io.StringIO):
    """What a program's cell shows."""

    def __init__(self):
        super().__init__()
        self._written = threading.Condition()

    def write(self, text):
        """Take text, and tell who waits for it."""
        with self._written:
            super().write(text)
            self._written.notify_all()
        return len(text)

    def wait_for(self, text):
        """Wait until the cell shows `text`."""
        with self._written:
            if not self._written.wait_for(lambda: text in self.getvalue(), 10):
                raise TimeoutError(f"the cell does not show {text!r}: {self.getvalue()!r}")

    def shows(self, text):
        """Tell whether the cell shows `text`."""
        return text in self.getvalue()


def make_probe(effects, parameters):
    """Make what a program is given: a count of effects that outlives the process, and events.

    It is a module, and one that looks installed: fingerprints take it by its name,
    so that counting is no input of the steps that count.
    """
    lock = threading.Lock()
    events = {}

    def effect(name):
        """Count one run of a body, for good, and give how many there have been."""
        descriptor = os.open(effects, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{name}\n".encode())
        os.close(descriptor)
        return count(name)

    def count(name):
        """Return how often the body has run, in all processes."""
        return Path(effects).read_text().splitlines().count(name)

    def event(name):
        """Return an event by its name, for bodies to order themselves."""
        with lock:
            return events.setdefault(name, threading.Event())

    probe = types.ModuleType("probe")
    probe.__file__ = threading.__file__
    probe.effect, probe.count, probe.event, probe.parameters = effect, count, event, parameters
    return probe


def load(path, name):
    """Return the program called `name` in the test module at `path`."""
    module = sys.modules.get("program")
    if module is None:
        spec = importlib.util.spec_from_file_location("program", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules["program"] = module
        spec.loader.exec_module(module)
    return getattr(module, name)


def execute(request):
    """Run the program as one execution and give what can be compared."""
    program = load(request["path"], request["program"])
    stdout = Shown()
    probe = make_probe(request["effects"], request["parameters"])
    probe.wait_until_shown, probe.shows = stdout.wait_for, stdout.shows
    if request["kill"]:
        moment, *numbers = request["kill"]
        if moment == "writing":
            testing.kill_while_writing(*numbers)
        else:
            testing.kill_at(moment, *numbers)
    events = []
    workflow = nbdurable.workflow(
        "program", store=request["store"], observers=(events.append,), **request["options"]
    )
    report = {"value": None, "error": None}
    with contextlib.redirect_stdout(stdout):
        try:
            if inspect.iscoroutinefunction(program):
                report["value"] = repr(asyncio.run(inside(workflow, program, probe)))
            else:
                with workflow:
                    report["value"] = repr(program(probe))
        except BaseException as error:
            report["error"] = f"{type(error).__name__}: {error}"
            report["traceback"] = traceback.format_exc()
    report["stdout"] = stdout.getvalue()
    report["notes"] = list(workflow.notes)
    report["events"] = [f"{type(one).__name__}" for one in events]
    open_stores.close_stores()
    return report


async def inside(workflow, program, probe):
    """Run an async program."""
    async with workflow:
        return await program(probe)


def serve(execute):
    """Serve requests until standard input closes: `execute` gives the report of one."""
    structure.expected_catalogue()  # remembered by every child: it takes a third of a small run
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            # A body that was let go may print when all is over: not between the answers.
            os.dup2(2, 1)
            try:
                report = execute(request)
                Path(request["report"]).write_text(json.dumps(report))
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(70)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    serve(execute)
