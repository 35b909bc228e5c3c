"""The "always replay" fixture: run a program, run it again in a new process, compare.

A program is a module-level function (sync or async) of a test module that takes a
`Probe`. It runs inside ``workflow("program")``.
"""

import ast
import collections
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from nbdurable.store import Store, check

ZYGOTE = Path(__file__).with_name("zygote.py")


@dataclass
class Report:
    """What one execution of a program gave."""

    code: int
    value: object = None
    error: str | None = None
    stdout: str = ""
    notes: list = field(default_factory=list)
    events: list = field(default_factory=list)
    traceback: str = ""

    @property
    def killed(self):
        """Whether the process was killed, as a test asked."""
        return self.code == -signal.SIGKILL

    def seen(self):
        """Return what the next execution must give again."""
        return self.value, self.error, self.stdout


class Zygote:
    """One `zygote.py` process, or one of another script that serves as it does."""

    def __init__(self, seed, script=ZYGOTE):
        self._process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
        )

    def run(self, request):
        """Run one execution and give how the child process ended."""
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())["code"]

    def close(self):
        """End the process."""
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()


class Bench:
    """Where a program is run: a store, an effects file, two zygotes in turn."""

    def __init__(self, zygotes, folder):
        self._zygotes = zygotes
        self._turn = 0
        self.folder = folder
        self.store = folder / "store.duckdb"
        self.effects_file = folder / "effects"
        self.effects_file.touch()

    def run(self, program, *, kill=None, parameters=None, **options):
        """Run `program` once, in a new process."""
        self._turn += 1
        report = self.folder / f"report{self._turn}.json"
        code = self._zygotes[self._turn % 2].run(
            {
                "path": program.__code__.co_filename,
                "program": program.__name__,
                "store": str(self.store),
                "effects": str(self.effects_file),
                "parameters": parameters or {},
                "report": str(report),
                "kill": kill,
                "options": options,
            }
        )
        if code != 0:
            return Report(code)
        found = json.loads(report.read_text())
        if found["value"] is not None:
            found["value"] = _literal(found["value"])
        return Report(code, **found)

    def effects(self):
        """Count how often each body has run, in all processes."""
        return collections.Counter(self.effects_file.read_text().splitlines())

    def check(self):
        """Return what is wrong with the store, and its checkpoints by label."""
        store = Store.open(self.store)
        try:
            problems = check(store)
            saved = [row[0] for row in store.rows("SELECT label FROM nbdurable.checkpoints")]
        finally:
            store.close()
        return problems, saved

    def rows(self, query):
        """Ask the store."""
        store = Store.open(self.store)
        try:
            return store.rows(query)
        finally:
            store.close()

    def always_replay(self, program, *, runs_again=(), **options):
        """Run `program`, then twice more in new processes; all must be as the first.

        No body may run again, but those named in `runs_again` (not saved).
        """
        first = self.run(program, **options)
        assert first.code == 0, "the first execution died"
        counts = self.effects()
        assert self.check()[0] == []
        for _ in range(2):
            again = self.run(program, **options)
            assert again.seen() == first.seen(), again.traceback
            new = {name for name in self.effects() if self.effects()[name] != counts[name]}
            assert new <= set(runs_again), f"ran again on replay: {new}"
            assert self.check()[0] == []
        return first


def _literal(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
