"""The process that runs edited programs: a script for `support.always_replay.Zygote`.

It loads the libraries once and forks for each pass. A child runs the programs of one
group one after the other in one store, each as a `__main__` of its own in a folder of
its own, or as cells of a real IPython shell, and reports what each showed and which
bodies ran.
"""

import contextlib
import importlib
import io
import os
import re
import signal
import sys
import traceback
import types
from pathlib import Path

if __name__ == "__main__":
    sys.path[:1] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from support import zygote

import nbdurable
from nbdurable.api import configuration, open_stores
from nbdurable.events import AttemptStarted, RunFinished, StepCreated, StepFinished

LIBRARIES = (
    "IPython.core.application", "IPython.core.completerlib", "IPython.core.interactiveshell",
    "IPython.core.magics", "attrs", "httpx", "jinja2", "matplotlib.pyplot", "nbdurable.notebook.commands", "nbdurable.notebook.extension", "numpy", "pandas", "polars", "pyarrow",
    "pyarrow.pandas_compat",
    "pydantic", "requests", "scipy.spatial", "sklearn.linear_model", "sklearn.neighbors", "sqlalchemy.orm", "sqlite3", "tenacity", "zoneinfo",
)  # fmt: skip
"""What programs import: loaded before the fork, so that no pass waits for it."""

PATIENCE = 60
"""Seconds after which a program counts as hung."""


class HungError(BaseException):
    """A program did not end; nothing in it takes that for an error of its own."""


def named_without_addresses(value):
    """Return the `repr` of a value, equal in every process."""
    return re.sub(r"0x[0-9a-f]+", "0x", repr(value))


class Watcher:
    """What one pass of a program was seen to do."""

    def __init__(self):
        self.shown = []
        self.ran = []
        self.unsaved = []
        self.notes = []
        self.lines = {}
        self.functions = {}
        self._labels = {}

    def observe(self, event):
        """Note the bodies that start, what is not saved, and what is told at the end."""
        if isinstance(event, StepCreated):
            self._labels[event.step] = event.label
        elif isinstance(event, AttemptStarted):
            self.ran.append([self._labels[event.step], f"{event.why}: {event.reason}"])
        elif isinstance(event, StepFinished):
            self.unsaved += [] if event.saved else [self._labels[event.step]]
        elif isinstance(event, RunFinished):
            self.notes += event.notes

    def show(self, value):
        """Keep what the program's cell sees."""
        self.shown.append(named_without_addresses(value))

    def report(self, error):
        """Return what the parent compares."""
        return {
            "shown": self.shown,
            "ran": self.ran,
            "unsaved": self.unsaved,
            "notes": self.notes,
            "lines": {name: sorted(at) for name, at in self.lines.items()},
            "functions": {name: sorted(at) for name, at in self.functions.items()},
            "error": error,
        }


def stage_for(watcher, name, store):
    """Make the module that a program gets its workflow from; it looks installed."""
    stage = types.ModuleType("stage")
    stage.__file__ = signal.__file__
    stage.show = watcher.show
    stage.workflow = lambda: nbdurable.workflow(name, store=store, observers=(watcher.observe,))
    return stage


class Tracer:
    """Which lines of a folder's files are executed below each function of its program."""

    def __init__(self, folder, watcher):
        self._folder = f"{folder}/"
        self._program = f"{folder}/prog.py"
        self._watcher = watcher
        self._step = None

    def __call__(self, frame, event, _):
        """Take the beginning of a frame."""
        code = frame.f_code
        if code.co_filename == self._program and self._step is None and code.co_name[0] != "<":
            self._step = code.co_name
            return self._until_it_returns
        if self._step is None or not code.co_filename.startswith(self._folder):
            return None
        file = code.co_filename.removeprefix(self._folder)
        self._watcher.functions.setdefault(self._step, set()).add((file, code.co_firstlineno))
        return self._line

    def _until_it_returns(self, frame, event, _):
        if event == "return":
            self._step = None
        return self._until_it_returns

    def _line(self, frame, event, _):
        if event == "line" and self._step is not None:
            file = frame.f_code.co_filename.removeprefix(self._folder)
            if file != "prog.py":
                self._watcher.lines.setdefault(self._step, set()).add((file, frame.f_lineno))
        return self._line


def as_script(path, main):
    """Run the program as Python runs a script."""
    main.__file__ = str(path)
    exec(compile(path.read_text(), str(path), "exec", dont_inherit=True), main.__dict__)


def as_notebook(path, main, watcher, name):
    """Run the program's cells in a real shell; the last one is the durable cell."""
    shells = importlib.import_module("IPython.core.interactiveshell")
    shells.InteractiveShell.clear_instance()
    config = importlib.import_module("traitlets.config").Config()
    config.HistoryManager.enabled = False
    shell = shells.InteractiveShell.instance(user_module=main, config=config)
    sys.modules["__main__"] = main
    shell.run_cell("%reload_ext nbdurable", silent=True)
    shell.user_ns["show"] = watcher.show
    *cells, last = path.read_text().split("# %%\n")
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        for cell in [*cells, f"%%durable {name}\n{last}"]:
            done = shell.run_cell(cell, store_history=True)
            done.raise_error()
    watcher.notes += said.getvalue().splitlines()


def ran_in_cells():
    """Return the steps that ran in the last execution of each notebook's run: name, label, why."""
    shell = importlib.import_module("IPython").get_ipython()
    asked = (
        "sql SELECT workflow, label, why, status FROM steps JOIN"
        " (SELECT workflow, max(execution) AS execution FROM nbdurable.executions"
        " GROUP BY workflow) USING (workflow, execution)"
    )
    return shell.run_line_magic("durable", asked).to_numpy().tolist()


def perform(row, store):
    """Run one program and return what it was seen to do."""
    folder = Path(row["folder"])
    watcher, error = Watcher(), None
    modules, path = dict(sys.modules), list(sys.path)
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    sys.path.insert(0, str(folder))
    os.chdir(folder)
    configuration.configure(store=store)
    signal.alarm(row.get("patience", PATIENCE))
    try:
        stage = stage_for(watcher, row.get("run", row["name"]), store)
        sys.modules["stage"] = stage
        if row.get("trace"):
            stage.workflow = contextlib.nullcontext
            sys.settrace(Tracer(folder, watcher))
        if row["notebook"]:
            as_notebook(folder / "prog.py", main, watcher, row["name"])
        else:
            as_script(folder / "prog.py", main)
    except BaseException as raised:
        error = f"{type(raised).__name__}: {raised}\n{traceback.format_exc()[-1500:]}"
    finally:
        sys.settrace(None)
        signal.alarm(0)
        sys.path[:] = path
        for gone in set(sys.modules) - set(modules):
            found = getattr(sys.modules[gone], "__file__", None) or ""
            if found.startswith(str(folder)) or not found:
                del sys.modules[gone]
        sys.modules["__main__"] = modules["__main__"]
    return watcher.report(error)


def execute(request):
    """Run a group of programs once and return the report of each."""
    signal.signal(signal.SIGALRM, hung)
    os.environ["IPYTHONDIR"] = str(Path(request["store"]).with_name("ipython"))
    # The hash seed is this process's own affair: a program doesn't see it as its environment.
    os.environ.pop("PYTHONHASHSEED", None)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        reports = {row["name"]: perform(row, request["store"]) for row in request["rows"]}
        if any(row["notebook"] for row in request["rows"]):
            for name, label, why, status in ran_in_cells():
                reports[name]["ran"].append([label, why])
                reports[name]["unsaved"] += [label] if status == "not saved" else []
        open_stores.close_stores()
    return reports


def hung(*_):
    """End a program that does not end by itself."""
    raise HungError("the program does not end")


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    for library in LIBRARIES:
        importlib.import_module(library)
    zygote.serve(execute)
