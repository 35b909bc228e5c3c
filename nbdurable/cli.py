"""The command line: a line is parsed, the work called, its result printed.

Invariant: what goes wrong is one line on stderr and an exit code that is not zero,
never a traceback.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from . import __version__, demo

if TYPE_CHECKING:
    from collections.abc import Callable

    from .demo import Story

_TABLE_WIDTH = 80

EXIT_CODES = "Exit codes: 0 done, 1 failed (the reason is on stderr), 2 the command line is wrong."


@click.group(epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="nbdurable")
def main() -> None:
    """Durable computation for Jupyter notebooks."""


@main.command(
    "demo", epilog=EXIT_CODES, short_help="Kill a notebook's kernel in mid-cell and run it again."
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help=f"A fresh folder for the notebook and its checkpoints.  [default: ./{demo.FOLDER}]",
)
def demo_command(folder: Path | None) -> None:
    """Kill a notebook's kernel in mid-cell, run the notebook again, and show what was replayed.

    Runs the quickstart notebook in a real kernel, kills that kernel with SIGKILL
    while some steps have finished and others are in flight, and runs the whole
    notebook again in a new kernel. Takes about 15 seconds, needs no network, and
    leaves the notebook, its checkpoints and its kernels' log in the folder.
    """
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


def _teller(console: Console) -> Callable[[str], None]:
    """Print each line as it comes, whole and without markup."""

    def tell(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

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
    """Give the lines that open `notebook` in this environment's JupyterLab, installed or not."""
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
    """Give the path from the working folder where that is the shorter one."""
    try:
        relative = os.path.relpath(path)
    except (OSError, ValueError):  # there is no working folder any more, or it is on another drive
        return str(path)
    return min(relative, str(path), key=len)


if __name__ == "__main__":
    main()
