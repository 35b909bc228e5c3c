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

EXIT_CODES = "Exit codes: 0 done, 1 failed (the reason is on stderr), 2 the command line is wrong."


@click.group(epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="nbdurable")
def main() -> None:
    """Durable computation for Jupyter notebooks."""


@main.command("demo", epilog=EXIT_CODES)
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
    try:
        notebook = demo.prepare(folder)
        story = demo.play(notebook, _teller(console))
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
    for column in ("step", "when the kernel died", "second run"):
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
        f"ran: {len(story.ran)} steps that were in flight\n"
        f"select: {story.winner} won before the kill, and after it\n"
        f"output: the same as that of an uninterrupted run\n"
        f"times: {story.first_seconds:.1f} s until the kill, {story.second_seconds:.1f} s for the "
        f"second run, kernels started\n\n"
        f"Open the notebook:  {_lab_line(story.notebook)}"
    )


def _lab_line(notebook: Path) -> str:
    """Give the line that opens `notebook` in JupyterLab, preceded by what installs that."""
    bin_folder = Path(sys.executable).parent
    jupyter = "jupyter"
    if shutil.which(jupyter) != str(bin_folder / jupyter):
        jupyter = shlex.quote(_short(bin_folder / jupyter))
    line = f"{jupyter} lab {shlex.quote(_short(notebook))}"
    if importlib.util.find_spec("jupyterlab") is not None:
        return line
    python = shlex.quote(_short(Path(sys.executable)))
    return f"{python} -m pip install 'nbdurable[lab]' && {line}"


def _short(path: Path) -> str:
    """Give the path from the working folder where that is the shorter one."""
    return min(os.path.relpath(path), str(path), key=len)


if __name__ == "__main__":
    main()
