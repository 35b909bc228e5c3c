"""The block in which a body runs and is seen, and what is installed for that.

Invariant: what is installed stays for the life of the process.
"""

from __future__ import annotations

from . import opens, starts
from .recorder import Recorder, enter, leave, running


def install() -> str:
    """See what bodies run and open from now on; return what can't be seen here, or nothing."""
    opens.install()
    return starts.install()


class Seeing:
    """A block, in its context, whose evidence a recorder takes."""

    __slots__ = ("_recorder", "_token")

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __enter__(self) -> None:
        recorder = self._recorder
        self._token = enter(recorder)
        running[id(recorder)] = recorder
        starts.begin(recorder)

    def __exit__(self, *_: object) -> None:
        running.pop(id(self._recorder), None)
        leave(self._token)
