"""The command line: a line is parsed, the work called, its result printed.

Invariant: what goes wrong is one line on stderr (of SQL, what DuckDB says) and an
exit code that is not zero, never a traceback. Data goes to stdout and nothing else
does; what is said beside it goes to stderr.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import os
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from nbdurable import __version__
from nbdurable.api import configuration, open_stores
from nbdurable.inspection import (
    amending,
    doctor,
    export,
    maintenance,
    reports,
    settings,
    watching,
)
from nbdurable.inspection import queries as questions
from nbdurable.labels import harmless
from nbdurable.notebook.header import parse_age
from nbdurable.view import tables

from .errors import DurableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from nbdurable.demo.story import Story
    from nbdurable.inspection.reports import Row

_TABLE_WIDTH = 80
_PIPE_WIDTH = 200

EXIT_CODES = "Exit codes: 0 done, 1 failed (the reason is on stderr), 2 the command line is wrong."


COMPLETION = (
    "Completion: put the output of `_NBDURABLE_COMPLETE=bash_source nbdurable` into your shell's "
    "start file; zsh_source and fish_source are for those shells."
)


class _Commands(click.Group):
    """The subcommands; of one that there is not, the one that is meant is named."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self.commands, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(self.commands)}"
            ctx.fail(f"no such command {args[0]!r}: {hint}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands,
    epilog=f"{EXIT_CODES}\n\n{COMPLETION}",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, "-V", "--version", prog_name="nbdurable")
def main() -> None:
    """Durable computation for Jupyter notebooks."""


@main.command(
    "demo", epilog=EXIT_CODES, short_help="Kill a notebook's kernel in mid-cell and run it again."
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="A fresh folder for the notebook and its checkpoints.  [default: ./nbdurable-demo]",
)
@click.option("--lab", is_flag=True, help="In JupyterLab: 200 paid questions, and a meter.")
@click.option("--no-browser", is_flag=True, help="With --lab: print the address alone.")
@click.argument("options", nargs=-1, metavar="[-- JUPYTERLAB'S OPTIONS]")
def demo_command(
    folder: Path | None, *, lab: bool, no_browser: bool, options: tuple[str, ...]
) -> None:
    """Kill a notebook's kernel in mid-cell, run the notebook again, and show what was replayed.

    Runs the quickstart notebook in a real kernel, kills that kernel with SIGKILL
    while some steps have finished and others are in flight, and runs the whole
    notebook again in a new kernel. Takes about 15 seconds, needs no network, and
    leaves the notebook, its checkpoints and its kernels' log in the folder.

    With --lab another notebook is opened in JupyterLab, for you to play: 200
    questions to a simulated paid provider, whose meter counts beside it what has been
    charged, and a kernel that is killed in the middle. Ctrl-C ends it. JupyterLab
    takes the first free port and gets what follows a "--", as in

        nbdurable demo --lab -- --port 9999 --allow-root
    """
    if lab:
        _demo_in_lab(folder, options, browser=not no_browser)
        return
    if no_browser or options:
        given = options[0] if options else "--no-browser"
        raise click.UsageError(f"{given} goes with --lab")
    from nbdurable.demo import story as demo  # noqa: PLC0415 - it drives kernels: the other commands don't pay for it

    console = Console(highlight=False)
    # A narrower terminal wraps lines by itself; a table squeezed into it can't be read.
    console.width = max(console.width, _TABLE_WIDTH)
    tell = _teller(console)
    try:
        notebook = demo.prepare(folder)
        tell(f"a copy of {notebook.name} is in {_short(notebook.parent)}{os.sep}")
        story = demo.play(notebook, tell)
    except demo.DemoError as error:
        raise click.ClickException(str(error)) from error
    _print_story(console, story)


_RUN_CODES = (
    "Exit codes: 0 done; 1 a cell failed, or the notebook can't be written; 2 the command line or "
    "the notebook is wrong, or there is no such kernel; 3 given up, the kernel died too often "
    "without progress; 4 another process runs this notebook; 130, 143 suspended by SIGINT, SIGTERM."
)


@main.command(
    "run", epilog=_RUN_CODES, short_help="Run a notebook to its end, through deaths of its kernel."
)
@click.argument("notebook", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "-p",
    "--parameter",
    "parameters",
    type=(str, str),
    multiple=True,
    metavar="NAME VALUE",
    help="Set a parameter behind the cell tagged `parameters`, as papermill does.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the executed notebook goes, and whose store it has.  [default: NOTEBOOK]",
)
@click.option("--kernel", default="", metavar="NAME", help="Another kernel than the notebook's.")
@click.option(
    "--deaths",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    metavar="N",
    help="Give up after N deaths in a row without progress.",
)
def run_command(
    notebook: Path,
    parameters: tuple[tuple[str, str], ...],
    output: Path | None,
    kernel: str,
    deaths: int,
) -> None:
    """Run NOTEBOOK without a front end, from its first cell to its last.

    When the kernel dies, a new one runs the notebook again from the top, and its durable
    cells resume. The executed notebook is written after every cell, whole or not at all.
    SIGTERM and Ctrl-C suspend the run: the same command goes on from there.
    """
    from nbdurable.headless import running, screen  # noqa: PLC0415 - the other commands don't pay for it

    request = running.Request(notebook, output, parameters, kernel, deaths)
    try:
        code = running.run(request, screen.Screen())
    except DurableError as error:
        wrong = {UsageError: running.Code.WRONG, running.HeldError: running.Code.HELD}
        click.echo(f"Error: {error}", err=True)
        sys.exit(wrong.get(type(error), running.Code.FAILED))
    sys.exit(code)


# --- Questions about a store -----------------------------------------------------------

_store_option = click.option(
    "--store",
    metavar="PATH",
    help="A store, or a notebook (.ipynb) whose store is meant.  [default: that of configure or "
    "NBDURABLE_STORE, else the only one in this folder's .nbdurable]",
)
_json_option = click.option(
    "--json", "as_json", is_flag=True, help="One JSON array; times in ISO 8601."
)


def _command(name: str, short: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command whose errors are one line, and that leaves no store open."""

    def decorate(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def command(**arguments: Any) -> None:
            try:
                function(**arguments)
            except DurableError as error:
                raise click.ClickException(harmless(str(error))) from error
            finally:
                open_stores.close_stores()

        return main.command(name, epilog=EXIT_CODES, short_help=short)(command)

    return decorate


@_command("status", "Show how far the newest run of each name is.")
@click.argument("name", required=False)
@_store_option
@_json_option
def status_command(name: str | None, store: str | None, as_json: bool) -> None:  # noqa: FBT001
    """Show how far the newest run of each name is; of a store that is held, what runs now.

    With NAME: that run alone.
    """
    told = reports.status(reports.store_at(store), name)
    _print_told(told, as_json=as_json, empty="no durable cell has run here yet")


@_command("runs", "List a store's runs, newest first.")
@_store_option
@_json_option
def runs_command(store: str | None, as_json: bool) -> None:  # noqa: FBT001 - click's way
    """List the runs of a store, newest first."""
    _print_told(reports.runs(reports.store_at(store)), as_json=as_json, empty="no runs yet")


@_command("steps", "List the steps of a run.")
@click.argument("name", required=False)
@click.argument("step", required=False)
@_store_option
@_json_option
def steps_command(name: str | None, step: str | None, store: str | None, as_json: bool) -> None:  # noqa: FBT001
    """List the steps of a run: of the newest called NAME, or of the newest.

    STEP is a step's name or label: only those.
    """
    found = reports.steps(reports.store_at(store), name)
    told = reports.Told(reports.of_step(found.rows, step, name), found.note)
    _print_told(told, as_json=as_json, empty="no steps yet")


@_command("watch", "Show runs live that another process executes.")
@click.argument("notebook", required=False)
@_store_option
def watch_command(notebook: str | None, store: str | None) -> None:
    """Show live how far the runs of NOTEBOOK are, or of a store: a cell that is busy elsewhere.

    On a terminal as they are drawn beside a script, else in plain lines. Ends when they
    have ended; Ctrl-C ends the watching alone.
    """
    place = reports.store_at(notebook or store)
    tell = _teller(Console(highlight=False, stderr=True))
    try:
        if not watching.watch(place, sys.stdout):
            tell(f"no run of {place} is live; `nbdurable runs` lists those that have ended")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


@_command("why", "Say why each step of a run ran, or was replayed.")
@click.argument("name", required=False)
@click.argument("step", required=False)
@_store_option
@_json_option
def why_command(name: str | None, step: str | None, store: str | None, as_json: bool) -> None:  # noqa: FBT001
    """Say why each step of a run ran when it last did.

    STEP is a step's name or label: only those, and how they failed, with the traceback,
    which unpickles their errors.
    """
    place = reports.store_at(store)
    rows = reports.of_step(reports.why(place, name), step, name)
    _print_rows(rows, as_json=as_json, empty="no steps yet")
    if name is not None and step is not None and not as_json:
        for error in reports.errors_of(place, name, step):
            click.echo(f"\n{harmless(error)}")


@_command("restart", "Let the next pass of a run start from nothing.")
@click.argument("name")
@_store_option
def restart_command(name: str, store: str | None) -> None:
    """Let the next pass of NAME start from nothing; the old run stays as history."""
    _teller(Console(highlight=False))(maintenance.restart(name, reports.store_at(store)))


@_command("sql", "Ask a store in SQL.")
@click.argument("query")
@_store_option
@_json_option
def sql_command(query: str, store: str | None, as_json: bool) -> None:  # noqa: FBT001
    """Ask a store in SQL.

    QUERY sees the views runs, executions, steps, attempts and decisions, and
    step('load'), the table that a step called, or labelled, load gave; "-" reads it
    from stdin.
    """
    if query == "-":
        query = sys.stdin.read()
    rows = questions.answer(query, reports.store_at(store))
    _print_rows(rows, as_json=as_json, empty="no rows")


@_command("redo", "Take saved outcomes out, to be made again.")
@click.argument("name")
@click.argument("labels", nargs=-1, metavar="[LABEL]...")
@click.option("--errors", is_flag=True, help="Only outcomes that are errors.")
@_store_option
def redo_command(name: str, labels: tuple[str, ...], errors: bool, store: str | None) -> None:  # noqa: FBT001
    """Take saved outcomes of the run NAME out: its next pass makes them again.

    LABEL is a step's name or label; without one all are meant. What hung on them goes
    with them: decisions that they won or lost, cancellations, the bodies that started
    them. The steps that a body started replay, unless they are named too.
    """
    tell = _teller(Console(highlight=False))
    place = reports.store_at(store)
    tell(amending.redo(name, labels, errors=errors, store=place, say=tell))


@_command("rename", "Give a run, or a step, another name.")
@click.argument("old")
@click.argument("new")
@_store_option
def rename_command(old: str, new: str, store: str | None) -> None:
    """Rename the run, or the step, called OLD: its outcomes are found under NEW.

    For a cell or a function that was renamed. Nothing is renamed onto a name that is
    taken.
    """
    _teller(Console(highlight=False))(amending.rename(old, new, reports.store_at(store)))


@_command("adopt", "Give a notebook the checkpoints of another.")
@click.argument("old")
@click.argument("notebook", type=click.Path(dir_okay=False, path_type=Path))
def adopt_command(old: str, notebook: Path) -> None:
    """Give NOTEBOOK the checkpoints that it had as OLD, a notebook's name in its folder.

    For a notebook that was renamed or copied: they become its own, and one that is still
    there keeps its own.
    """
    configuration.set_notebook(notebook.absolute())
    _teller(Console(highlight=False))(maintenance.adopt(old))


@_command("config", "Show each setting and where it comes from.")
@_json_option
def config_command(as_json: bool) -> None:  # noqa: FBT001 - click's way
    """Show each setting and where it comes from: here, that is the environment.

    In a notebook `%durable config SETTING=VALUE` sets it, in a script configure().
    """
    _print_rows(settings.shown(), as_json=as_json)


@_command("gc", "Take out what a store no longer needs.")
@_store_option
@click.option("--older-than", metavar="AGE", help="Only what is older: 90, 30m, 12h, 7d.")
@click.option("--yes", is_flag=True, help="Take it out, and make the file small.")
@_json_option
def gc_command(store: str | None, older_than: str | None, yes: bool, as_json: bool) -> None:  # noqa: FBT001
    """Show what a store no longer needs, or take it out, for good.

    That is: runs that a newer one of their name has replaced, outcomes of finished
    runs that other code or other values have superseded, and object files that no
    outcome has.
    """
    place = reports.store_at(store)
    age = None if older_than is None else parse_age(older_than, "--older-than")
    with _working("collecting" if yes else "looking for what is no longer needed"):
        found = maintenance.collect(place, older_than=age, remove=yes)
    _print_rows(reports.collected(found), as_json=as_json)
    console = Console(highlight=False, stderr=as_json)
    _teller(console)(reports.collected_told(found, "nbdurable gc --yes"))


@_command("trust", "Show somebody else's store, and make it yours.")
@click.argument("path")
@click.argument("digest", required=False)
@click.option("--yes", is_flag=True, help="Sign what is shown.")
def trust_command(path: str, digest: str | None, yes: bool) -> None:  # noqa: FBT001
    """Show what is in a store that somebody else made, and sign it with your key.

    PATH is a store, or a notebook whose store is meant. With the DIGEST that was shown
    nothing is signed if the store is another by now. Nothing is unpickled for
    that. Once it is signed, running its notebook unpickles what is in it, which can
    run any code: sign what comes from people whom you would let do that.
    """
    if digest and not yes:
        raise UsageError(f"trust {path} {digest}: what was shown as DIGEST is signed by --yes")
    store = reports.store_at(path)
    with _working("signing" if yes else "reading the store"):
        found = maintenance.trust(store, digest or "") if yes else maintenance.survey(store)
    _print_rows(reports.surveyed(found), as_json=False, empty="no saved steps")
    _teller(Console(highlight=False))(reports.told(found))
    _teller(Console(highlight=False))(
        "signed with your key"
        if yes
        else f"nothing was signed; nbdurable trust {shlex.quote(path)} --yes {found.digest} "
        f"signs it"
    )


@_command("untrust", "Take back that a store is yours.")
@click.argument("path")
def untrust_command(path: str) -> None:
    """Take back that the store at PATH, or of the notebook at PATH, is yours.

    Nothing of it is replayed until it is trusted again.
    """
    _teller(Console(highlight=False))(maintenance.untrust(reports.store_at(path)))


@_command("doctor", "Examine a store and what it needs.")
@_store_option
@_json_option
def doctor_command(store: str | None, as_json: bool) -> None:  # noqa: FBT001
    """Examine a store: its files, its key, who holds it, every invariant, unfinished runs.

    Ends with 1 when something is wrong.
    """
    place = reports.store_at(store)
    with _working("examining the store"):
        findings = doctor.diagnose(place)
    words = {True: "ok", False: "wrong", None: ""}
    _print_rows(
        [
            {"what": one.what, "found": one.found, "sound": one.sound}
            if as_json
            else {"": words[one.sound], "what": one.what, "found": one.found}
            for one in findings
        ],
        as_json=as_json,
    )
    if any(one.sound is False for one in findings):
        sys.exit(1)


@_command("export", "Write a run's steps to Parquet or JSON.")
@click.argument("run")
@click.option(
    "--to",
    "target",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write; its name ends in .parquet or .json.",
)
@click.option("--values", is_flag=True, help="Add what each step gave; that unpickles it.")
@_store_option
def export_command(run: str, target: Path, values: bool, store: str | None) -> None:  # noqa: FBT001
    """Write the steps of a run to a Parquet or JSON file.

    RUN is a name, whose newest run is meant, or a run's id, or 8 letters of it.
    """
    place = reports.store_at(store)
    with _working(f"writing {target.name}"):
        count = export.export(place, run, target, values=values)
    click.echo(f"{count} steps are in {target}", err=True)


def _working(what: str) -> AbstractContextManager[object]:
    """Return a context in which a terminal shows that `what` is still going on."""
    return Console(stderr=True, highlight=False).status(f"{what} ...")


def _print_told(told: reports.Told, *, as_json: bool, empty: str) -> None:
    """Print the rows of an answer, and beside them, on stderr, what there is to say."""
    _print_rows(told.rows, as_json=as_json, empty=empty)
    if told.note:
        click.echo(told.note, err=True)


def _print_rows(rows: Sequence[Row], *, as_json: bool, empty: str = "") -> None:
    """Print rows as one JSON array, or as a table."""
    if as_json:
        lines = ",\n".join(reports.as_json(row) for row in rows)
        click.echo(f"[{lines}]")
        return
    if not rows:
        if empty:
            click.echo(empty, err=True)
        return
    console = Console(highlight=False)
    console.width = max(console.width, _TABLE_WIDTH) if console.is_terminal else _PIPE_WIDTH
    console.print(tables.grid(rows))


# --- The demonstration -----------------------------------------------------------------


def _demo_in_lab(folder: Path | None, options: Sequence[str], *, browser: bool) -> None:
    """Open the notebook of the 200 questions, until JupyterLab has ended."""
    from nbdurable.demo import lab  # noqa: PLC0415 - likewise
    from nbdurable.demo import story as demo  # noqa: PLC0415 - likewise

    tell = _teller(Console(highlight=False))
    try:
        lab.check()
        notebook = demo.prepare(folder, lab.NOTEBOOK)
        tell(f"a copy of {notebook.name} is in {_short(notebook.parent)}{os.sep}")
        code = lab.serve(notebook, tell, browser=browser, options=options)
    except demo.DemoError as error:
        raise click.ClickException(str(error)) from error
    if code:
        raise click.ClickException(f"JupyterLab ended with {code}; what it said is above")


def _teller(console: Console) -> Callable[[str], None]:
    """Print each line as it comes, whole and without markup."""

    def tell(line: str) -> None:
        console.print(harmless(line), markup=False, soft_wrap=True)

    return tell


def _print_story(console: Console, story: Story) -> None:
    """Print the table of steps, what it amounts to, and how to open the notebook."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in ("step", "at the kill", "second run"):
        table.add_column(column)
    for column in ("time", "bodies run"):
        table.add_column(column, justify="right")
    for step in story.steps:
        second = "[green]replayed[/]" if step.replayed else "ran"
        table.add_row(step.label, step.before, second, f"{step.seconds:.1f} s", str(step.bodies))
    console.print()
    console.print(table)
    console.print()
    _teller(console)(
        f"replayed: {len(story.replayed)} steps, {story.seconds_spared:.1f} s of work not done "
        f"again\n"
        f"ran: {len(story.ran)} steps, which were in flight\n"
        f"select: {story.winner} won before the kill, and after it\n"
        f"output: the same as that of an uninterrupted run\n"
        f"times: {story.first_seconds:.1f} s until the kill, {story.second_seconds:.1f} s for the "
        f"second run; kernel start included\n"
    )
    _teller(console)("\n".join(_how_to_open(story.notebook)))


def _how_to_open(notebook: Path) -> list[str]:
    """Return the lines that open `notebook` in this environment's JupyterLab, installed or not."""
    python = Path(sys.executable)
    bare = _on_path("python", python.parent)
    interpreter = "python" if bare else shlex.quote(_short(python))
    lab = "jupyter lab" if _on_path("jupyter", python.parent) else f"{interpreter} -m jupyterlab"
    line = f"  {lab} {shlex.quote(_short(notebook))}"
    if importlib.util.find_spec("jupyterlab") is not None:
        return ["Open the notebook and run all: now everything is replayed.", line]
    return [
        "Install JupyterLab, open the notebook and run all: now everything is replayed.",
        f"  {interpreter} -m pip install 'nbdurable[lab]'",
        line,
    ]


def _on_path(command: str, folder: Path) -> bool:
    """Say whether `command` by its bare name is the one in `folder`."""
    found = shutil.which(command)
    return found is not None and Path(found).parent == folder


def _short(path: Path) -> str:
    """Return the path from the working folder where that is the shorter one."""
    try:
        relative = os.path.relpath(path)
    except (OSError, ValueError):  # there is no working folder any more, or it is on another drive
        return str(path)
    return min(relative, str(path), key=len)


if __name__ == "__main__":
    main()
