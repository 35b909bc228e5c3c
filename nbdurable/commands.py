"""``%durable``: its subcommands.

A line is parsed, the session or the reports are asked, and rows given back.

Invariant: a mistake is one line that says what to write instead.
"""

from __future__ import annotations

import difflib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from . import cell, kernel, reports, session, words
from .errors import UsageError
from .tables import Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from IPython.core.interactiveshell import InteractiveShell

    from .records import RunSummary


def _row(run: RunSummary) -> dict[str, object]:
    """Make a row of a run, in words."""
    return {
        "name": run.name,
        "status": str(run.status),
        "saved": run.saved,
        "in flight": run.in_flight,
        "executions": run.executions,
        "created": datetime.fromtimestamp(run.created, UTC).astimezone(),
        "last started": words.ago(time.time() - run.last_started),
        "run": run.id[:8],
    }


def _status(_shell: InteractiveShell, _rest: str) -> object:
    return Table(session.status(), "no durable cell has run here yet")


def _runs(_shell: InteractiveShell, _rest: str) -> object:
    return Table([_row(run) for run in session.runs()], "no runs yet")


def _steps(shell: InteractiveShell, rest: str) -> object:
    name = _name(shell, rest)
    return Table(session.steps(name), f"no steps of {name} yet" if name else "no steps yet")


def _why(shell: InteractiveShell, rest: str) -> object:
    name = _name(shell, rest)
    return Table(session.why(name), f"no steps of {name} yet" if name else "no steps yet")


def _restart(shell: InteractiveShell, rest: str) -> object:
    if (name := _name(shell, rest)) is None:
        raise UsageError("%durable restart NAME: which run?" + _run_names())
    print(session.restart(name))  # noqa: T201 - the answer
    return None


def _adopt(_shell: InteractiveShell, rest: str) -> object:
    if not (name := rest.strip().strip("'\"")):
        raise UsageError(
            "%durable adopt NOTEBOOK: the notebook whose checkpoints this one takes, by its name"
        )
    print(session.adopt(name))  # noqa: T201 - the answer
    return None


def _sql(_shell: InteractiveShell, rest: str) -> object:
    if not rest:
        raise UsageError("%durable sql QUERY: for example SELECT name, status, seconds FROM steps")
    found = session.query(rest)
    return Table(found, "no rows") if isinstance(found, list) else found


def _gc(_shell: InteractiveShell, rest: str) -> object:
    words, age, yes = rest.split(), None, False
    while words:
        word = words.pop(0)
        if word == "--yes":
            yes = True
        elif word == "--older-than" and words:
            age = cell.parse_age(words.pop(0), word)
        else:
            raise UsageError(f"%durable gc [--older-than AGE] [--yes]: what is {word}?")
    found = session.collect(older_than=age, remove=yes)
    print(reports.collected_told(found, "%durable gc --yes"))  # noqa: T201 - the answer
    rows = reports.collected(found)
    return Table(rows) if rows else None


def _trust(_shell: InteractiveShell, rest: str) -> object:
    words = rest.split()
    if words not in ([], ["--yes"]):
        raise UsageError("%durable trust [--yes]: shows this notebook's store; --yes signs it")
    found = session.trust() if words else session.survey()
    print(reports.told(found))  # noqa: T201 - the answer
    print("signed with your key" if words else "nothing was signed: %durable trust --yes signs it")  # noqa: T201
    return Table(reports.surveyed(found), "no saved steps")


@dataclass(frozen=True, slots=True)
class _Command:
    run: Callable[[InteractiveShell, str], object]
    usage: str
    duty: str


_COMMANDS: Final = {
    "status": _Command(_status, "status", "the store, and what runs"),
    "runs": _Command(_runs, "runs", "the runs saved here, newest first"),
    "steps": _Command(_steps, "steps [NAME]", "each step of the newest run: status, seconds"),
    "why": _Command(_why, "why [NAME]", "why each step ran, or was replayed"),
    "restart": _Command(_restart, "restart NAME", "the next pass of NAME starts from nothing"),
    "adopt": _Command(_adopt, "adopt NOTEBOOK", "take the checkpoints that it had as NOTEBOOK"),
    "gc": _Command(_gc, "gc [--older-than AGE] [--yes]", "what is no longer needed; takes it out"),
    "trust": _Command(_trust, "trust [--yes]", "what somebody else saved; --yes makes it yours"),
    "sql": _Command(_sql, "sql QUERY", "ask the store: SELECT name, seconds FROM steps"),
}


def run(shell: InteractiveShell, line: str) -> object:
    """Do what follows ``%durable``; alone it lists the subcommands."""
    word, _, rest = line.strip().partition(" ")
    if not word:
        return Table([{"command": f"%durable {c.usage}", "": c.duty} for c in _COMMANDS.values()])
    if (command := _COMMANDS.get(word)) is None:
        near = difflib.get_close_matches(word, _COMMANDS, n=1, cutoff=0.5)
        hint = f"did you mean %durable {near[0]}?" if near else f"it has {', '.join(_COMMANDS)}"
        raise UsageError(f"%durable has no {word}: {hint}")
    session.set_notebook(kernel.notebook(shell))
    return command.run(shell, rest.strip())


def _name(shell: InteractiveShell, rest: str) -> str | None:
    """Read a NAME argument, in quotes or not, with its {expressions}."""
    bare = rest.strip().strip("'\"")
    return cell.expand_name(bare, shell.user_ns) if bare else None


def _run_names() -> str:
    """List the names of the runs at hand, for a message."""
    names = list(dict.fromkeys(run.name for run in session.runs()))
    return f" There is {', '.join(names[:8])}" if names else ""


def complete(_shell: InteractiveShell, event: Any) -> list[str]:
    """Complete a subcommand, then the name of a run."""
    words = event.line.split()
    if len(words) + (not event.symbol) <= 2:  # noqa: PLR2004 - %durable and its subcommand
        return list(_COMMANDS)
    if words[1] in {"steps", "why", "restart"} and store_exists():
        return list(dict.fromkeys(run.name for run in session.runs()))
    return []


def store_exists() -> bool:
    """Tell whether there is a store file to ask; asking would not make one."""
    return Path(session.default_store()).is_file()
