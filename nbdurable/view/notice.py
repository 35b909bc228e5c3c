"""The notice of unfinished runs, as the extension loads: what is saved, and how to go on.

Invariant: its plain text is a line a run and the same wherever it is shown; the panels
around it add nothing that must be read.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

from nbdurable import labels
from nbdurable.records import RunStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nbdurable.records import RunSummary

LISTED: Final = 8
"""So many runs are named, the newest first; the others are counted."""

_RESUME: Final = "run its cell to resume"
_TITLE: Final = "unfinished: what is saved is not run again"
# Mid tones, so that they read on white and on JupyterLab's dark ground alike.
_FRAME: Final = "border-left:3px solid #b8720a;padding:.3em .9em;margin:.3em 0"
_DIM: Final = "opacity:.75"


@dataclass(frozen=True, slots=True)
class _Item:
    """What is said of one run."""

    name: str
    saved: str
    since: str
    way: str

    @property
    def text(self) -> str:
        """The line that a person reads."""
        return f"{self.name}: {self.saved}, {self.since}" + (f"; {self.way}" if self.way else "")


class Notice:
    """What is unfinished, for a person.

    Args:
        runs: The runs, the newest first.
        now: Seconds since the epoch.
    """

    def __init__(self, runs: Sequence[RunSummary], now: float) -> None:
        self._items = [_item(run, now) for run in runs[:LISTED]]
        more = len(runs) - len(self._items)
        self._more = f"… {more:,} more: %durable status lists them" if more else ""

    @property
    def bundle(self) -> dict[str, str]:
        """The notice as a notebook displays it."""
        return {"text/html": self._html(), "text/plain": str(self)}

    def __str__(self) -> str:
        lines = [one.text for one in self._items]
        return "\n".join([*lines, self._more] if self._more else lines)

    def print(self) -> None:
        """Print it on stdout, in a frame where that is a terminal which can show one."""
        encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower()
        if sys.stdout is None or not sys.stdout.isatty() or not encoding.startswith("utf"):
            print(self)  # noqa: T201 - told as the extension loads
            return
        from rich.console import Console  # noqa: PLC0415 - who has finished doesn't pay for it
        from rich.panel import Panel  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        text = Text()
        for one in self._items:
            rest = one.text[len(one.name) :]
            text.append(one.name, style="bold").append(f"{rest}\n", style="not bold")
        text.append(self._more, style="dim")
        text.rstrip()
        console = Console(highlight=False)
        if console.is_dumb_terminal:
            print(self)  # noqa: T201 - likewise
            return
        console.print(
            Panel(text, title=_TITLE, title_align="left", border_style="yellow", expand=False)
        )

    def _html(self) -> str:
        items = "".join(
            f"<li><strong>{escape(one.name)}</strong>{escape(one.text[len(one.name) :])}</li>"
            for one in self._items
        )
        more = f'<div style="{_DIM}">{escape(self._more)}</div>' if self._more else ""
        title = f"{_TITLE[:1].upper()}{_TITLE[1:]}"
        return (
            f'<div style="{_FRAME}" role="note"><div style="{_DIM}">{escape(title)}</div>'
            f'<ul style="margin:.2em 0">{items}</ul>{more}</div>'
        )


def _item(run: RunSummary, now: float) -> _Item:
    """Say where a run stopped, and how to go on."""
    when = labels.ago(now - (run.last_ended or run.last_started))
    known = run.saved + run.in_flight
    saved = (
        f"{run.saved:,} of {known:,} steps saved" if run.in_flight else f"{_steps_of(known)} saved"
    )
    name = labels.printable(run.name)
    if run.status is RunStatus.RUNNING:
        return _Item(name, saved, f"running; its execution began {when}", "")
    stopped = f"{run.status} at {run.progress}, {when}" if run.progress else f"{run.status} {when}"
    return _Item(name, saved, stopped, _RESUME)


def _steps_of(number: int) -> str:
    return "no step" if not number else "1 step" if number == 1 else f"{number:,} steps"
