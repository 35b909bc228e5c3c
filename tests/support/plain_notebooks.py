"""Notebooks of plain cells, run in processes that are killed, and what came of them."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@dataclass
class Passed:
    """What one pass showed, cell by cell, and what it left; ``left`` is empty after a kill."""

    cells: list = field(default_factory=list)
    left: dict = field(default_factory=dict)

    @property
    def restored(self):
        """The places of the cells that were restored."""
        return [one["at"] for one in self.cells if (one["outcome"] or {}).get("restored")]

    @property
    def ran(self):
        """The places of the cells that ran, of those that could be restored at all."""
        return [
            one["at"]
            for one in self.cells
            if one["outcome"] and not one["outcome"]["restored"] and not one["outcome"]["defines"]
        ]

    def why(self, at):
        """Why a cell ran."""
        return self.cells[at]["outcome"]["why"]

    def unsaved(self, at):
        """Why a cell was not saved."""
        return self.cells[at]["outcome"]["unsaved"]

    @property
    def shown(self):
        """What each cell showed."""
        return [one["shown"] for one in self.cells]

    @property
    def errors(self):
        """The error of each cell."""
        return [one["error"] for one in self.cells]


class Notebooks:
    """Runs notebooks over one store after the other."""

    def __init__(self):
        env = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "plain_zygote.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )

    def close(self):
        """End the process."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(
        self,
        folder,
        cells,
        mode="auto",
        *,
        kill_after=None,
        end="kill",
        env=None,
        settle=True,
        trace=False,
    ):
        """Run a pass; give what it showed and left.

        Args:
            folder: Where it works; the store is there.
            cells: The sources.
            mode: ``plain``, ``auto``, ``auto dry`` and the like, or ``loaded``.
            kill_after: After which cell the process kills itself.
            end: ``kill``, or ``exit`` as a kernel that is shut down.
            env: More variables.
            trace: Whether to write out how things were before each cell.
            settle: Whether what was saved of a cell is written before the next one begins.
        """
        told = folder / "told.jsonl"
        request = {
            "told": str(told),
            "folder": str(folder),
            "cells": list(cells),
            "mode": mode,
            "kill_after": kill_after,
            "end": end,
            "settle": settle,
            "trace": trace,
            "env": {"NBDURABLE_STORE": str(folder / "store.duckdb"), **(env or {})},
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        lines = [json.loads(line) for line in told.read_text(encoding="utf-8").splitlines()]
        passed = Passed([one for one in lines if "at" in one])
        passed.left = next((one for one in lines if "values" in one), {})
        expected = kill_after is not None or end == "kill"
        assert (answer["status"] == 9) == expected, (answer, passed.cells[-1:])
        return passed


def same(one, other, *, drawn=True):
    """Say what differs between what two passes left; empty if nothing does.

    Not ``drawn``: one of them draws from another seed, which nobody gave.
    """
    found = []
    for part in ("values", "around", "out"):
        mine, theirs = one[part], other[part]
        found += [
            f"{part} {name}: {mine.get(name)!s:.300} / {theirs.get(name)!s:.300}"
            for name in sorted(mine.keys() | theirs.keys())
            if mine.get(name) != theirs.get(name)
            and (drawn or name not in {"random", "numpy.random"})
        ]
    if one["links"] != other["links"]:
        found.append(f"links: {one['links']} / {other['links']}")
    return found
