"""``%durable``: its subcommands, their help, their completion.

A line is parsed by click, as the command line's is; the session or the reports are
asked, and rows given back.

Invariant: a mistake is one line that says what to write instead.
"""

from __future__ import annotations

import difflib
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from nbdurable import labels
from nbdurable.api import configuration
from nbdurable.errors import DurableError, StoreLockedError, UsageError
from nbdurable.inspection import (
    amending,
    doctor,
    export,
    live,
    maintenance,
    reports,
    settings,
)
from nbdurable.inspection import history as recall
from nbdurable.inspection import queries as questions
from nbdurable.inspection.at_hand import store_holding
from nbdurable.records import RunStatus
from nbdurable.view import summary
from nbdurable.view.notebook import widget
from nbdurable.view.tables import Table

from . import auto, finding, header
from . import shell as kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from IPython.core.interactiveshell import InteractiveShell

    from nbdurable.records import RunSummary

_HELP_WIDTH: Final = 96
_LOOK_SECONDS: Final = 0.3
"""Completion waits no longer for a store that another process holds."""

_VIEWS: Final = ("runs", "executions", "steps", "attempts", "decisions")

_COMMANDS: Final[dict[str, click.Command]] = {}


def run(shell: InteractiveShell, line: str) -> object:
    """Do what follows ``%durable``; alone it lists the subcommands.

    Raises:
        UsageError: The line is wrong; in one line it says how.
    """
    word, _, rest = line.strip().partition(" ")
    if word in {"", "-h", "--help"}:
        return Table(listed())
    if (command := _COMMANDS.get(word)) is None:
        near = difflib.get_close_matches(word, _COMMANDS, n=1, cutoff=0.5)
        hint = f"did you mean %durable {near[0]}?" if near else f"it has {', '.join(_COMMANDS)}"
        raise UsageError(f"%durable has no {word}: {hint}")
    configuration.set_notebook(finding.notebook(shell))
    return _invoke(shell, command, rest.strip())


def listed() -> list[dict[str, object]]:
    """Return a row a subcommand: how it is written, and what it is for."""
    return [
        {"command": _usage(command), "": command.get_short_help_str(limit=80)}
        for command in _COMMANDS.values()
    ]


def _invoke(shell: InteractiveShell, command: click.Command, rest: str) -> object:
    name = f"%durable {command.name}"
    if rest in {"-h", "--help"}:
        context = click.Context(command, info_name=name, max_content_width=_HELP_WIDTH)
        context.terminal_width = _HELP_WIDTH
        print(command.get_help(context))  # noqa: T201 - the answer
        return None
    # SQL is no line of words: its quotes, dashes and braces are its own.
    arguments = ["--", rest] if command.name == "sql" and rest else list(header.split(rest))
    try:
        with command.make_context(name, arguments, obj=shell) as context:
            return command.invoke(context)
    except click.exceptions.Exit:
        return None
    except click.UsageError as error:
        said = error.format_message().rstrip(".")
        raise UsageError(
            f"{name}: {said[:1].lower()}{said[1:]}; usage: {_usage(command)}"
        ) from None


def _usage(command: click.Command) -> str:
    """Write a subcommand with its arguments and options."""
    parts = [f"%durable {command.name}"]
    for one in command.params:
        if isinstance(one, click.Option):
            parts.append(f"[{one.opts[-1]} {one.metavar}]" if one.metavar else f"[{one.opts[-1]}]")
        else:
            assert isinstance(one, click.Argument)
            assert one.metavar is not None, one.name
            parts.append(one.metavar)
    return " ".join(parts)


def _command(name: str, *parameters: Callable[..., Any]) -> Callable[..., click.Command]:
    """Make a subcommand of a function that takes the shell and what the line says."""

    def decorate(function: Callable[..., object]) -> click.Command:
        for parameter in reversed(parameters):
            function = parameter(function)
        made = click.command(name, context_settings={"help_option_names": ["-h", "--help"]})(
            click.pass_obj(function)
        )
        _COMMANDS[name] = made
        return made

    return decorate


# All may be left out, as far as click is concerned: what is missing is said in our words.
_name = click.argument("name", required=False, metavar="[NAME]")
_step = click.argument("step", required=False, metavar="[STEP]")


# --- The subcommands ------------------------------------------------------------------


@_command("status", _name)
def _status(shell: InteractiveShell, name: str | None) -> object:
    """Show the store, and how far the newest run of each name is.

    With NAME: that run's view, as it is now or as its last execution left it.
    """
    places = configuration.stores_at_hand()
    if busy := {place: runs for place in places if (runs := live.live_runs(place))}:
        return _elsewhere(busy, [place for place in places if place not in busy], name)
    rows = questions.status()
    if name is not None:
        known = _known(shell, name)
        if kernel.in_kernel(shell) and widget.show_again(known):
            return None
        if (recalled := recall.recall(known)) is not None:
            return summary.Summary(recalled.view, recalled.facts)
        rows = [row for row in rows if row["workflow"] == known]
    return Table(
        reports.aware(rows),
        "no durable cell has run here yet",
        title=_where(),
    )


def _elsewhere(busy: dict[str, list[live.LiveRun]], others: list[str], name: str | None) -> object:
    """Return what shows the runs that other processes execute, and those of the other stores.

    With a name: the one of that name, if there is one.
    """
    for one in (one for runs in busy.values() for one in runs):
        if one.begun.name == name:
            return summary.Summary(live.view_of(one), lambda _: ())
    rows: list[reports.Row] = [
        {
            "workflow": one.begun.name,
            "status": str(RunStatus.RUNNING),
            "saved": one.saved,
            "in flight": one.in_flight,
            "executions": one.begun.execution,
        }
        for runs in busy.values()
        for one in runs
    ]
    titles = [live.live_note(*one) for one in busy.items()]
    for place in others:
        try:
            known = questions.status(place)
        except StoreLockedError as error:
            titles.append(str(error))
            continue
        is_there = name is not None and any(row["workflow"] == name for row in known)
        if is_there and (found := recall.recall(str(name), place)) is not None:
            return summary.Summary(found.view, found.facts)
        rows += [{column: row.get(column, 0) for column in rows[0]} for row in known]
    return Table(rows, "", title="; ".join(titles))


def _where() -> str:
    there = configuration.stores_at_hand()
    if len(there) > 1:
        return f"stores: {len(there)} in {configuration.working_folder()}"
    return f"store: {configuration.default_store()}"


@_command("runs")
def _runs(_shell: InteractiveShell) -> object:
    """List the runs saved here, newest first."""
    return Table([_row(run) for run in questions.runs()], "no runs yet")


@_command("steps", _name, _step)
def _steps(shell: InteractiveShell, name: str | None, step: str | None) -> object:
    """List each step of the newest run: status, seconds.

    NAME is a run's, else the newest run is meant; STEP a step's name or label.
    """
    return _of_steps(shell, questions.steps, name, step)


@_command("why", _name, _step)
def _why(shell: InteractiveShell, name: str | None, step: str | None) -> object:
    """Say why each step ran, or was replayed; with STEP also how it failed.

    NAME is a run's, else the newest run is meant; STEP a step's name or label.
    """
    table = _of_steps(shell, questions.why, name, step)
    if name is not None and step is not None:
        for error in reports.errors_of(None, _known(shell, name), step):
            print(labels.harmless(error))  # noqa: T201 - the answer, above its table
    return table


@_command("restart", click.argument("name", required=False, metavar="NAME"))
def _restart(shell: InteractiveShell, name: str | None) -> object:
    """Let the next pass of NAME start from nothing; the old runs stay as history."""
    if name is None:
        known = _names()
        there = f" There is {', '.join(known[:8])}" if known else ""
        raise UsageError(f"%durable restart NAME: which run?{there}")
    print(maintenance.restart(_known(shell, name)))  # noqa: T201 - the answer
    return None


@_command(
    "redo",
    click.argument("name", required=False, metavar="NAME"),
    click.argument("labels", nargs=-1, metavar="[LABEL]..."),
    click.option("--errors", is_flag=True, help="Only outcomes that are errors."),
)
def _redo(
    shell: InteractiveShell,
    name: str | None,
    labels: tuple[str, ...],
    errors: bool,  # noqa: FBT001 - click's way
) -> object:
    """Take saved outcomes of NAME out: its next pass makes them again.

    LABEL is a step's name or label; without one all are meant. What hung on them goes
    with them: decisions that they won or lost, cancellations, the bodies that started
    them. The steps that a body started replay, unless they are named too.
    """
    if name is None:
        known = _names()
        there = f" There is {', '.join(known[:8])}" if known else ""
        raise UsageError(f"%durable redo NAME [LABEL]...: which run?{there}")
    print(amending.redo(_known(shell, name), labels, errors=errors, say=print))  # noqa: T201 - the answer
    return None


@_command(
    "rename",
    click.argument("old", required=False, metavar="OLD"),
    click.argument("new", required=False, metavar="NEW"),
)
def _rename(_shell: InteractiveShell, old: str | None, new: str | None) -> object:
    """Rename a run, or a step: its outcomes are found under NEW.

    For a cell or a function that was renamed. Nothing is renamed onto a name that is
    taken.
    """
    if not old or not new:
        raise UsageError("%durable rename OLD NEW: the name of a run or a step, and its new one")
    print(amending.rename(old, new))  # noqa: T201 - the answer
    return None


@_command("adopt", click.argument("notebook", required=False, metavar="NOTEBOOK"))
def _adopt(_shell: InteractiveShell, notebook: str | None) -> object:
    """Take the checkpoints that this notebook had as NOTEBOOK.

    For a notebook that was renamed or copied: they become its own, and one that is
    still there keeps its own.
    """
    if not notebook:
        raise UsageError(
            "%durable adopt NOTEBOOK: the notebook whose checkpoints this one takes, by its name"
        )
    print(maintenance.adopt(notebook))  # noqa: T201 - the answer
    return None


@_command(
    "gc",
    click.option("--older-than", metavar="AGE", help="Only what is older: 90, 30m, 12h, 7d."),
    click.option("--yes", is_flag=True, help="Take it out, and make the file small."),
)
def _gc(_shell: InteractiveShell, older_than: str | None, yes: bool) -> object:  # noqa: FBT001
    """Show what is no longer needed; --yes takes it out, for good.

    That is: runs that a newer one of their name has replaced, outcomes of finished
    runs that other code or other values have superseded, and object files that no
    outcome has.
    """
    age = None if older_than is None else header.parse_age(older_than, "--older-than")
    found = maintenance.collect(older_than=age, remove=yes)
    print(reports.collected_told(found, "%durable gc --yes"))  # noqa: T201 - the answer
    rows = reports.collected(found)
    return Table(rows) if rows else None


@_command(
    "trust",
    click.argument("digest", required=False, metavar="[DIGEST]"),
    click.option("--yes", is_flag=True, help="Sign what is shown, with your key."),
)
def _trust(_shell: InteractiveShell, digest: str | None, yes: bool) -> object:  # noqa: FBT001
    """Show what somebody else saved; --yes makes it yours.

    With the DIGEST that was shown nothing is signed if the store is another by now.
    Nothing is unpickled for that. Once it is signed, running this notebook unpickles
    what is in its store, which can run any code: sign what comes from people whom you
    would let do that.
    """
    if digest and not yes:
        raise UsageError(f"%durable trust {digest}: what was shown as DIGEST is signed by --yes")
    found = maintenance.trust(digest=digest or "") if yes else maintenance.survey()
    print(reports.told(found))  # noqa: T201 - the answer
    how = f"nothing was signed: %durable trust --yes {found.digest} signs it"
    print("signed with your key" if yes else how)  # noqa: T201
    return Table(reports.surveyed(found), "no saved steps")


@_command("untrust")
def _untrust(_shell: InteractiveShell) -> object:
    """Take back that this notebook's store is yours: nothing of it is replayed."""
    print(maintenance.untrust())  # noqa: T201 - the answer
    return None


@_command("sql", click.argument("query", required=False, metavar="QUERY"))
def _sql(_shell: InteractiveShell, query: str | None) -> object:
    """Ask the store: SELECT name, seconds FROM steps.

    QUERY sees the views runs, executions, steps, attempts and decisions, and
    step('load'), the table that a step called, or labelled, load gave.
    """
    if not query:
        raise UsageError("%durable sql QUERY: for example SELECT name, status, seconds FROM steps")
    found = questions.query(query)
    return Table(found, "no rows") if isinstance(found, list) else found


@_command("doctor")
def _doctor(_shell: InteractiveShell) -> object:
    """Examine the store: its files and key, who holds it, every invariant."""
    words = {True: "ok", False: "wrong", None: ""}
    places = configuration.stores_at_hand() or [reports.store_at(None)]
    found = [one for place in places for one in doctor.diagnose(reports.store_at(place))]
    return Table({"": words[one.sound], "what": one.what, "found": one.found} for one in found)


@_command(
    "export",
    click.argument("name", required=False, metavar="NAME"),
    click.argument("target", required=False, metavar="FILE"),
    click.option("--values", is_flag=True, help="Add what each step gave; that unpickles it."),
)
def _export(
    _shell: InteractiveShell,
    name: str | None,
    target: str | None,
    values: bool,  # noqa: FBT001 - click's way
) -> object:
    """Write the steps of the run NAME to FILE, which ends in .parquet or .json.

    NAME is a run's, whose newest run is meant, or a run's id, or 8 letters of it.
    """
    if not name or not target:
        raise UsageError("%durable export NAME FILE: for example quotes quotes.parquet")
    place = reports.store_at(store_holding(name))
    count = export.export(place, name, Path(target), values=values)
    print(f"{count} steps are in {target}")  # noqa: T201 - the answer
    return None


@_command(
    "auto",
    click.argument("words", nargs=-1, metavar="[SECONDS | dry | off]"),
    click.option("--new", is_flag=True, help="Begin anew: restore nothing, draw anew."),
)
def _auto(
    shell: InteractiveShell,
    words: tuple[str, ...],
    new: bool,  # noqa: FBT001 - click's way
) -> object:
    """Save every plain cell, and restore it where nothing has changed.

    SECONDS (2, 2s, 1m): save only cells that took longer. dry: run every cell, and say whether
    it would have been restored to the same. off: run cells as ever.
    """
    said = auto.switch(shell, words, new=new)
    if kernel.watched(shell):
        print(said)  # noqa: T201 - the answer
    return None


@_command("config", click.argument("setting", nargs=-1, metavar="[SETTING=VALUE]..."))
def _config(_shell: InteractiveShell, setting: tuple[str, ...]) -> object:
    """Show each setting and where it comes from; SETTING=VALUE sets it.

    For example: %durable config limit=8 strict=on. SETTING=default sets it back. As
    what nbdurable.configure() sets, it holds until this kernel ends.
    """
    configuration.configure(**settings.read(setting))
    return Table(settings.shown())


# --- What they share ------------------------------------------------------------------


def _row(run: RunSummary) -> dict[str, object]:
    """Make a row of a run, in words."""
    return {
        "name": run.name,
        "status": str(run.status),
        "saved": run.saved,
        "in flight": run.in_flight,
        "executions": run.executions,
        "created": reports.instant(run.created),
        "last started": labels.ago(time.time() - run.last_started),
        "run": run.id[:8],
    }


def _of_steps(
    shell: InteractiveShell,
    ask: Callable[[str | None], list[dict[str, object]]],
    name: str | None,
    step: str | None,
) -> Table:
    """Return the rows of a run's steps, or of those that have this name or label."""
    run = None if name is None else _known(shell, name)
    rows = reports.aware(ask(run))
    rows = reports.of_step(rows, step, name)
    return Table(rows, f"no steps of {run} yet" if run else "no steps yet")


def _known(shell: InteractiveShell, name: str) -> str:
    """Return the name that a run has, its {expressions} filled in.

    Raises:
        UsageError: No run has it.
    """
    known = _names()
    if name in known:
        return name  # what a store says is a name, whatever is in it, and nothing to evaluate
    expanded = header.expand_name(name, shell.user_ns)
    if expanded not in known:
        raise reports.no_run(expanded, known)
    return expanded


def _offered() -> list[str]:
    """Return the names of runs that can be typed: no expression, nothing that can't be read."""
    return [one for one in _names(_LOOK_SECONDS) if one.isprintable() and not set("{}") & set(one)]


def _names(wait: float | None = None) -> list[str]:
    """Return the names of the runs at hand, newest first."""
    found = questions.runs() if wait is None else questions.runs(wait=wait)
    return list(dict.fromkeys(run.name for run in found))


# --- Completion -----------------------------------------------------------------------


def complete(shell: InteractiveShell, event: Any) -> list[str]:
    """Return what may stand where the cursor is: a subcommand, an option, a run, a step."""
    typed = event.text_until_cursor.split()[1:]
    before = typed[:-1] if event.symbol and typed else typed
    if not before:
        return list(_COMMANDS)
    if (command := _COMMANDS.get(before[0])) is None:
        return []
    configuration.set_notebook(finding.notebook(shell))
    with suppress(DurableError):  # whoever holds the store, or has broken it, is told of elsewhere
        return [*_values(command, before[1:], typed[-1]), *_options(command, event.symbol)]
    return []


def _options(command: click.Command, begun: str) -> Iterable[str]:
    if not begun.startswith("-") and command.name != "gc":
        return []
    return [
        name for one in command.params if isinstance(one, click.Option) for name in one.opts
    ] + ["--help"]


def _values(command: click.Command, before: list[str], last: str) -> Iterable[str]:
    """Return what the next argument can be."""
    words = [word for word in before if not word.startswith("-")]
    match command.name:
        case "steps" | "why" | "redo" if len(words) == 1 and words[0] in _names(_LOOK_SECONDS):
            found = dict.fromkeys(reports.called(row) for row in questions.steps(words[0]))
            return [one for one in found if one.isprintable()]
        case "steps" | "why" | "restart" | "redo" | "rename" if not words:
            return _offered()
        case "auto" if not words:
            return ["dry", "off"]
        case "adopt" if not words:
            return maintenance.earlier_names()
        case "config":
            name, equals, _ = last.partition("=")
            if equals:
                return settings.choices(name)
            return [f"{name}=" for name in settings.MEANINGS]
        case "sql":
            return _VIEWS
    return []
