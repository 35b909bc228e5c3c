"""Processes of this machine: each slot is a loky executor of one worker.

Invariant: a worker that dies takes one call with it and no other, for loky ends all calls
of an executor whose worker died. A call that is stopped is ended with its worker. No worker
outlives this process: it asks the system to be killed with it, and looks for its parent.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import os
import re
import signal
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from loky.backend import get_context
from loky.process_executor import ProcessPoolExecutor, ShutdownExecutorError

from .channel import hearing
from .limits import Elastic
from .loops import LoopThread, call_in
from .remote import Arrival, perform_batch
from .short import MOST_IN_A_BATCH, Short, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from .limits import Room
    from .remote import Call, Message, Perform

IDLE_SECONDS = 60.0
"""A worker that no run has used for so long is ended."""

_PARENT_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1
_CODES = re.compile(r"exit codes? of the workers are \{(.*?)\}")
_starting = LoopThread("nbdurable-processes")
"""Workers are started from a thread that lives as long as the process: Linux kills what asked to
be killed with its parent when the thread ends that started it."""


def begin_worker(parent: int) -> None:
    """Make this process end with the one that started it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a person interrupts the kernel, which ends this
    threading.Thread(target=_watch, args=(parent,), name="nbdurable-parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)  # a parent's death wakes nobody
    os._exit(1)


class _Slot:
    """One worker and its calls, first come first served; loky starts it with the first."""

    def __init__(self, perform: Perform) -> None:
        self._perform = perform
        self.executor = ProcessPoolExecutor(
            1, context=get_context("loky"), initializer=begin_worker, initargs=(os.getpid(),)
        )
        self.batches: list[list[Call]] = []
        self.fresh = True
        self.dead = False
        self.surroundings: Any = None

    def submit(self, batch: list[Call]) -> Future[list[Message]]:
        """Let the worker run calls, one after the other."""
        messages = [call.message for call in batch]
        future: Future[list[Message]] = self.executor.submit(perform_batch, self._perform, messages)
        return future

    def kill(self, *, wait: bool = False) -> None:
        """End the worker, and what it runs."""
        with contextlib.suppress(Exception):  # loky may be ending it already
            self.executor.shutdown(wait=wait, kill_workers=True)


class Processes:
    """The workers of this process, shared by its runs; a fork forgets them.

    Where bodies are short, a worker is sent several at once, and the next ones while it runs
    those, so that it need not wait for them.
    """

    link = ""
    name = "its worker process"
    knows_memory = True

    def __init__(self, perform: Perform) -> None:
        self._perform = perform
        self.forget()

    def forget(self) -> None:
        """Begin anew, in a forked child, whose parent's workers these are."""
        self._lock = threading.Lock()
        self._slots: list[_Slot] = []
        self._waiting: deque[Call] = deque()
        self._short = Short()
        self._most = 1
        self._rooms: dict[int, Elastic] = {}
        self._used = time.monotonic()
        self._closing = False

    def room(self, slots: int) -> Room | None:
        """Return the room of as many workers as the run asks for; more where bodies are short."""

        def most() -> int:
            return slots * MOST_IN_A_BATCH if self._short.last else slots

        with self._lock:
            self._most = max(self._most, slots)
            return self._rooms.setdefault(slots, Elastic(most))

    @staticmethod
    def prepare(message: Message) -> None:
        """Say where the worker tells how it goes, and what is around it here."""
        message["channel"] = hearing.address()

    def send(self, call: Call) -> None:
        """Run a call on an idle worker, or on a new one, or when there is one."""
        hearing.expect(call)
        with self._lock:
            self._waiting.append(call)
        self._assign()

    def _assign(self) -> None:
        """Send what waits to the workers that can take it."""
        while True:
            with self._lock:
                while self._waiting and self._waiting[0].stopped:
                    self._waiting.popleft()
                slot = self._free() if self._waiting and not self._closing else None
                if slot is None:
                    return
                batch = self._batch()
                slot.batches.append(batch)
                fresh, slot.fresh = slot.fresh, False
            if fresh:
                call_in(_starting.loop, self._submit, slot, batch)
            else:
                self._submit(slot, batch)

    def _batch(self) -> list[Call]:
        """Take the call that is next, with others of its kind if they are short."""
        first = self._waiting[0]
        size = 1
        if self._short.holds(first):
            size = self._short.batch(first, len(self._waiting), self._most)
        found = [self._waiting.popleft()]
        while len(found) < size and self._waiting and kind_of(self._waiting[0]) == kind_of(first):
            if self._waiting[0].lost_before:
                break
            found.append(self._waiting.popleft())
        return found

    def _free(self) -> _Slot | None:
        """Return a worker for the call that is next, a new one if there may be more."""
        idle = [slot for slot in self._slots if not slot.batches]
        if idle:
            return idle[-1]
        if len(self._slots) < self._most:
            self._slots.append(_Slot(self._perform))
            return self._slots[-1]
        if self._short.holds(self._waiting[0]):
            for slot in self._slots:
                if len(slot.batches) == 1 and self._short.holds(slot.batches[0][0]):
                    return slot
        return None

    def _submit(self, slot: _Slot, batch: list[Call]) -> None:
        around = _surroundings()
        if around != slot.surroundings:
            slot.surroundings = batch[0].message["around"] = around
        try:
            future = slot.submit(batch)
        except Exception as error:  # noqa: BLE001 - loky tells of a broken or closed executor so
            self._lost(slot, batch, _how(error), innocent=True)
            return
        _end_first(self.close)
        future.add_done_callback(functools.partial(self._done, slot, batch))
        for call in batch:
            if call.stopped:
                self.stop(call)

    def _done(self, slot: _Slot, batch: list[Call], future: Future[list[Message]]) -> None:
        error = future.exception()
        if error is not None:
            ended = isinstance(error, ShutdownExecutorError)
            self._lost(slot, batch, "it was ended" if ended else _how(error), innocent=ended)
            return
        replies = future.result()
        with self._lock:
            slot.batches.remove(batch)
            self._used = time.monotonic()
            for call, reply in zip(batch, replies, strict=True):
                self._short.learn(call, reply)
            later = [call for call, one in zip(batch, replies, strict=True) if _is_later(one)]
            self._waiting.extendleft(reversed(later))
            next_one = slot.batches[0] if slot.batches else []
            unwanted = next_one[0] if len(next_one) == 1 and next_one[0].stopped else None
        if unwanted is not None:
            self.stop(unwanted)
        self._assign()
        for call, reply in zip(batch, replies, strict=True):
            if not _is_later(reply):
                call.arrive(Arrival(reply))
                hearing.over(call)  # what the worker told before comes before the end

    def _lost(self, slot: _Slot, batch: list[Call], how: str, *, innocent: bool) -> None:
        """Take note that a worker has died: over what it ran, and over nothing that waited.

        Of several short bodies nobody knows which it was, unless one has said that it takes
        longer: each is tried again alone.
        """
        with self._lock:
            innocent = innocent or slot.dead
            slot.dead = True
            if slot in self._slots:
                self._slots.remove(slot)
        slot.kill()
        for call in batch:
            blamed = len(batch) == 1 or bool(call.workers)
            call.arrive(Arrival(lost=how, innocent=innocent or not blamed))
            hearing.over(call)
        self._assign()

    def stop(self, call: Call) -> None:
        """Kill the worker that runs a call; one that waits there is left out later.

        So is one of several short ones, which end by themselves, until it is known that it
        takes long.
        """
        call.stopped = True
        hearing.over(call)
        with self._lock:
            slot = next((one for one in self._slots if _runs(one, call)), None)
            if slot is None:
                return
            self._slots.remove(slot)
            slot.dead = True
        slot.kill()
        self._assign()

    def rest(self) -> None:
        """End the workers that are idle, once nobody has used any for a while."""
        timer = threading.Timer(IDLE_SECONDS, self._end_idle)
        timer.daemon = True
        timer.start()

    def _end_idle(self) -> None:
        with self._lock:
            if any(slot.batches for slot in self._slots):
                return
            if time.monotonic() - self._used < IDLE_SECONDS:
                return
            idle, self._slots = self._slots, []
        for slot in idle:
            slot.kill()

    def close(self) -> None:
        """End every worker at once: this process ends."""
        with self._lock:
            self._closing = True
            slots, self._slots = self._slots, []
            self._waiting.clear()
        for slot in slots:
            slot.kill(wait=True)
        hearing.close()


def _is_later(reply: Message) -> bool:
    return bool(reply["status"] == "later")


def _runs(slot: _Slot, call: Call) -> bool:
    """Tell whether a worker is at work on a call, or on a batch in which it takes long."""
    now = slot.batches[0] if slot.batches else []
    return call in now and (len(now) == 1 or bool(call.workers))


def _surroundings() -> tuple[str, list[str], dict[str, str]]:
    """Return what a body finds around it: the working folder, the path, the environment."""
    try:
        folder = os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        folder = ""
    return folder, list(sys.path), dict(os.environ)


def _how(error: BaseException) -> str:
    """Say how a worker died, from what loky says of it."""
    found = _CODES.search(str(error))
    code = found.group(1) if found else ""
    if code.startswith("EXIT("):
        return f"it ended with exit code {code[5:-1]}"
    name = code.partition("(")[0]
    why = {
        "SIGKILL": " (the system kills so what takes too much memory)",
        "SIGSEGV": " (a segmentation fault)",
    }
    return f"it was killed by {name}{why.get(name, '')}" if name else "it died"


_shared: list[Processes] = []
_last: list[object] = []


def _end_first(close: Callable[[], None]) -> None:
    """Have `close` called before loky, at this process's end, waits for what still runs.

    What is registered last is called first, and loky registers with its first call.
    """
    if not _last:
        _last.append(close)
        register: Any = getattr(threading, "_register_atexit", atexit.register)
        register(close)


def processes(perform: Perform) -> Processes:
    """Return the workers of this process, with what they run."""
    if not _shared:
        _shared.append(Processes(perform))
        os.register_at_fork(after_in_child=_shared[0].forget)
    return _shared[0]
