"""What a place outside this process that runs bodies has to offer the engine: a `Pool`.

Invariant: a pool is given plain data and gives plain data back; it knows no steps. Each
`Call` that was sent arrives once, in whatever thread, unless it was stopped.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .limits import Room

Message = dict[str, Any]
"""Plain data that goes to a worker, or comes from one."""

Perform = Callable[[Message], Message]
"""What a worker runs: the engine hands it in."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a call came back: with its worker's reply, or without one.

    ``lost`` says how the worker died. With ``innocent`` it was another call's worker, or
    nothing of this one had begun: it may be sent again, and that is no attempt.
    ``refused`` says why no worker could take it.
    """

    reply: Message | None = None
    lost: str = ""
    innocent: bool = False
    refused: str = ""


@dataclass(eq=False, slots=True)
class Call:
    """One attempt's body on its way to a worker and back.

    ``arrived`` is called with what comes back, ``heard`` with what the worker tells while the
    body runs. ``workers`` holds the names of those that have said that they began it.
    """

    message: Message
    arrived: Callable[[Arrival], object]
    heard: Callable[[Message], object]
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    workers: list[str] = field(default_factory=list)
    stopped: bool = False
    lost_before: int = 0
    _over: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def arrive(self, arrival: Arrival) -> None:
        """Tell, once, how it came back; nobody, where it was stopped."""
        with self._lock:
            over, self._over = self._over, True
        if not over and not self.stopped:
            self.arrived(arrival)


class Pool(Protocol):
    """Where bodies run outside this process."""

    name: str
    """What a message calls it."""

    knows_memory: bool
    """Whether a body's memory can be bounded there."""

    def room(self, slots: int) -> Room | None:
        """Return what a call needs room in; `slots` is how many the run asks for."""

    def prepare(self, message: Message) -> None:
        """Add to a message what its worker needs to tell how it goes."""

    def send(self, call: Call) -> None:
        """Let a worker run it; what comes of that arrives."""

    def stop(self, call: Call) -> None:
        """End its work: nothing arrives any more."""

    def rest(self) -> None:
        """A run has ended: what nobody uses may be given up after a while."""

    @property
    def link(self) -> str:
        """Where people can look at what its workers do; nothing where there is no such place."""


BATCH_SECONDS = 0.1
"""Bodies that are short go in batches that take about half of this; after it, the rest of one
comes back, to be sent again. So much work may run again where a worker is lost."""


# --- in a worker --------------------------------------------------------------------------

bodies: dict[str, int] = {}
"""The threads of the bodies that run here, by their calls."""

stopped: set[str] = set()
"""The calls that nobody waits for any more, some of which may come here yet."""


def perform_batch(perform: Perform, messages: list[Message]) -> list[Message]:
    """Run calls one after the other; what there is no time for comes back."""
    until = time.monotonic() + BATCH_SECONDS
    return [perform(messages[0])] + [
        perform(message) if time.monotonic() < until else {"status": "later"}
        for message in messages[1:]
    ]


class StoppedError(BaseException):
    """Raised in a body whose ending is nobody's any more."""


def end_process(token: str) -> None:
    """End this process, if it runs that body; one that comes to it later does not begin."""
    if token in bodies:
        os._exit(1)
    stopped.add(token)


def interrupt_body(token: str) -> None:
    """End a body of this process where its Python code stands; one that waits in C, after that."""
    stopped.add(token)  # it may not have begun
    thread = bodies.get(token)
    if thread is not None:
        raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
        raise_in(ctypes.c_ulong(thread), ctypes.py_object(StoppedError))
