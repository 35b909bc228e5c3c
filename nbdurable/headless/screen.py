"""How a run of a notebook shows itself: a bar and the running steps on a terminal, else lines.

Invariant: all goes to stderr, and where that is no terminal, each line is whole and stays.
"""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from nbdurable.labels import duration

_LABELS = 3


class Screen:
    """The screen of one run; a context in which it is shown."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._live = self._console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[said]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._live,
        )
        self._bar = self._progress.add_task("", total=None, said="")

    def __enter__(self) -> Self:
        """Begin to show."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the lines alone."""
        self._progress.stop()

    def say(self, line: str) -> None:
        """Show a line that stays."""
        self._console.print(line, markup=False, soft_wrap=True)

    def cell(self, number: int, total: int, title: str) -> None:
        """Show that a cell begins."""
        self._progress.update(
            self._bar,
            description=f"[{number}/{total}] {title}",
            total=total,
            completed=number - 1,
            said="",
        )

    def steps(self, said: str, in_flight: list[str]) -> None:
        """Show how the steps of the running cell stand."""
        more = f" and {len(in_flight) - _LABELS} more" if len(in_flight) > _LABELS else ""
        now = f": {', '.join(in_flight[:_LABELS])}{more}" if in_flight else ""
        self._progress.update(self._bar, said=f"{said}{now}")

    def cell_ended(self, number: int, total: int, title: str, said: str, seconds: float) -> None:
        """Show that a cell has ended; on a terminal only one with steps leaves a line."""
        self._progress.update(self._bar, completed=number, said="")
        if said or not self._live:
            steps = f"{said}, " if said else ""
            self.say(f"[{number}/{total}] {title}: {steps}{duration(seconds)}")
