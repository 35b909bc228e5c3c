"""Tells other processes how far the runs of a store are, in its status file.

Invariant: a run pays for none of it: a thread looks at what is there, at most about once a
second and for at most a thirtieth of its time. Where the file can't be written it is done
without.
"""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Final

from nbdurable import store as stores
from nbdurable.codec.told import packed
from nbdurable.store import MEMORY

if TYPE_CHECKING:
    from nbdurable.engine.control import Control

FIRST_SECONDS: Final = 0.5
"""A run that ends sooner is not told of."""
PERIOD_SECONDS: Final = 1.0
_SHARE: Final = 30
_MOST_ROWS: Final = 400
_LONGEST_NOTE: Final = 500
_MOST_NOTES: Final = 20
VERSION: Final = 1


class LiveStatus:
    """One store's runs that are under way in this process."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._runs: dict[int, Control] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def begin(self, control: Control) -> None:
        """Tell of a run from now on, if it lasts."""
        if self._place == MEMORY:
            return
        with self._changed:
            self._runs[id(control)] = control
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._tell, name=f"nbdurable status of {self._place}", daemon=True
                )
                self._thread.start()

    def end(self, control: Control) -> None:
        """Tell of a run no more."""
        with self._changed:
            self._runs.pop(id(control), None)
            if not self._runs:
                self._changed.notify_all()

    def _tell(self) -> None:
        try:
            self._tell_on()
        except BaseException:  # whatever ended it, the next run tells again
            with self._changed:
                self._thread = None
            stores.remove_status(self._place)
            raise

    def _tell_on(self) -> None:
        told, pause = b"", FIRST_SECONDS
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: not self._runs, pause):
                    self._thread = None
                    if told:
                        stores.remove_status(self._place)
                    return
                controls = [*self._runs.values()]
            began = time.perf_counter()
            data = _data(self._place, controls)
            if data != told and not stores.write_status(self._place, data):
                data = told
            told = data
            pause = max(PERIOD_SECONDS, _SHARE * (time.perf_counter() - began))


def _data(place: str, controls: list[Control]) -> bytes:
    """Return the file's content; of runs with many steps fewer are told until it fits."""
    most = _MOST_ROWS
    while True:
        states = [state for one in controls if (state := one.so_far(most)) is not None]
        runs = [
            {
                "counts": state.counts,
                "events": [packed(event) for event in state.events],
                "notes": [note[:_LONGEST_NOTE] for note in state.notes[-_MOST_NOTES:]],
            }
            for state in states
        ]
        told = {"version": VERSION, "owner": stores.owner_of(place), "runs": runs}
        data = json.dumps(told).encode("ascii")
        if len(data) <= stores.MOST_STATUS_BYTES or not most:
            return data if len(data) <= stores.MOST_STATUS_BYTES else b"{}"
        most //= 2
