"""A run's view outside notebooks: live where stderr is a terminal, else plain lines.

Who looks decides: on a terminal the view shows itself once a run lasts, and leaves a
few lines; where stderr is a file or a pipe nothing is written unless it is asked for.
All of it goes to stderr, so that stdout holds the program's own output and nothing else.

Invariant: the engine is not slowed down: `LiveView` hands the view over, at most five
times a second, in its own thread.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from nbdurable.output import streams
from nbdurable.view import words
from nbdurable.view.live import LiveView
from nbdurable.view.progress import CHOOSERS, GLYPHS, MOVING, State

from .drawing import Artist
from .region import Region

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from nbdurable.view.progress import RunView, StepView

BEAT: Final = 0.5
"""Seconds after which running times are shown anew."""

NEWS_GAPS: Final = (1.0, 30.0)
"""Seconds between two batches of plain lines: a tenth of the run's age, within these."""

TALLY_GAPS: Final = (10.0, 60.0)
"""Seconds between two counts: the run's age, within these."""

BATCH: Final = 5
"""A batch has at most so many lines; the rest is counted."""


def view_for(
    name: str, *, asked: bool | None, clock: Callable[[], float] = time.time
) -> LiveView | None:
    """Return the view of a run in this process; None where nobody is to see one.

    Args:
        name: The run's.
        asked: True, show it wherever stderr goes; False, nowhere; None, on a terminal,
            once the run lasts.
        clock: What stamped the events.
    """
    stream = streams.uncovered("stderr")
    if asked is False or stream is None or stream.closed:
        return None
    screen = screen_for(stream, always=asked is True)
    if isinstance(screen, TerminalScreen):
        return LiveView(name, screen, beat=BEAT, clock=clock)
    if asked:
        return LiveView(name, screen, beat=NEWS_GAPS[0], clock=clock)
    return None


def screen_for(stream: TextIO, *, always: bool) -> TerminalScreen | PlainScreen:
    """Return where a run is shown on a stream: drawn on a terminal, else in plain lines.

    Args:
        stream: Where to.
        always: Whether a run's summary is left there even if it was over before it was shown.
    """
    artist = Artist(stream)
    if artist.can_move:
        return TerminalScreen(_region(stream), artist, always=always)
    return PlainScreen(stream, artist)


class TerminalScreen:
    """The bottom lines of a terminal."""

    asked = False

    def __init__(self, region: Region, artist: Artist, *, always: bool) -> None:
        self._region = region
        self._artist = artist
        self._always = always
        self._view: RunView | None = None
        region.join()

    def reserve(self) -> None:
        """Its place is the bottom of the screen, always."""

    def prepare(self) -> None:
        """Nothing is to be loaded."""

    def open(self, view: RunView, now: float) -> None:
        """Draw the run for the first time."""
        self._view = view
        self.send(view, now)

    def send(self, view: RunView, now: float) -> None:
        """Draw it as it is now."""
        lines = self._artist.live(
            view, now, columns=self._region.size().columns, room=self._region.room(self)
        )
        self._region.show(self, lines)

    def beat(self, now: float) -> None:
        """Draw it again: running times go on."""
        assert self._view is not None
        self.send(self._view, now)

    def clear(self) -> None:
        """Take it off the screen."""
        self._region.show(self, [])

    def summarise(self, view: RunView) -> None:
        """Leave a few lines, if the run was shown or it was asked for."""
        if view.started is not None and (self._always or self._view is not None):
            self._region.say(self._artist.left(view))
        self._region.leave()


class PlainScreen:
    """A stream that takes lines and nothing else: a file, a pipe, a dumb terminal."""

    asked = False

    def __init__(self, stream: TextIO, artist: Artist) -> None:
        self._stream = stream
        self._artist = artist
        self._view: RunView | None = None
        self._news_at = 0.0
        self._tally_at = 0.0
        self._notes = 0
        self._told: dict[int, str] = {}

    def reserve(self) -> None:
        """Its place is the bottom of the screen, always."""

    def prepare(self) -> None:
        """Nothing is to be loaded."""

    def open(self, view: RunView, now: float) -> None:
        """Say that the run has started, and what it has already."""
        self._view = view
        saved = f"{view.saved:,} outcomes saved" if view.saved else "nothing saved yet"
        self._write(self._artist.line(f"{view.name}: started, {saved}"))
        self._news_at, self._tally_at = now, now + TALLY_GAPS[0]

    def send(self, view: RunView, now: float) -> None:
        """Say what is new and how far it is, each when it is time."""
        lines = []
        if now >= self._news_at:
            news = self._news(view)
            lines = [f"{view.name}: {one}" for one in news[:BATCH]]
            if len(news) > BATCH:
                lines.append(f"{view.name}: … {len(news) - BATCH:,} more")
            self._news_at = now + _within(view.elapsed(now) / 10, NEWS_GAPS)
        if now >= self._tally_at:
            lines.append(words.line(view, now))
            self._tally_at = now + _within(view.elapsed(now), TALLY_GAPS)
        if lines:
            self._write("\n".join(map(self._artist.line, lines)))

    def beat(self, now: float) -> None:
        """As `send`: the time may have come for what was new earlier."""
        assert self._view is not None
        self.send(self._view, now)

    def clear(self) -> None:
        """Lines stay."""

    def summarise(self, view: RunView) -> None:
        """Say how it ended."""
        if view.started is not None:
            self._write(self._artist.left(view))

    def _news(self, view: RunView) -> list[str]:
        """Return what happened since this was last asked: decisions, failures, retries, notes."""
        found = list(view.notes[self._notes :])
        self._notes = len(view.notes)
        for row in view.steps.values():
            said = _said(view, row)
            if said and self._told.get(row.place) != said:
                self._told[row.place] = said
                found.append(said)
        return found

    def _write(self, text: str) -> None:
        """Write lines, past what a step's output is kept apart by."""
        try:
            streams.bare(self._stream)(f"{text}\n")
            self._stream.flush()
        except (OSError, ValueError):
            return  # closed meanwhile: nobody reads it


def _within(seconds: float, gaps: tuple[float, float]) -> float:
    return min(max(seconds, gaps[0]), gaps[1])


def _said(view: RunView, row: StepView) -> str:
    """Say what is worth a line of a row that has changed; else nothing."""
    if row.kind in CHOOSERS and row.winners:
        return words.sentence(view, row)
    if row.combinator or row.replayed:
        return ""
    if row.state is State.FAILED:
        return f"{GLYPHS[row.state]} {words.failed(row)}"
    if row.error and row.state in MOVING:
        failed = row.attempts - (row.state is State.RUNNING)
        error = words.clipped(row.error)
        return f"{GLYPHS[State.RETRYING]} {words.title(row)}: attempt {failed} failed: {error}"
    return ""


_REGIONS: Final[list[Region]] = []


def _region(stream: TextIO) -> Region:
    """Return the one region of a terminal."""
    for region in _REGIONS:
        if region.stream is stream:
            return region
    _REGIONS[:] = [Region(stream)]
    return _REGIONS[0]
