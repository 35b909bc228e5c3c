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
from .limits import Limit
from .loops import LoopThread, call_in
from .remote import Arrival

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from .limits import Room
    from .remote import Call, Message, Perform

IDLE_SECONDS = 60.0
"""A worker that no run has used for so long is ended."""

SHORT_SECONDS = 0.02
"""Bodies that take less have their worker sent the next one before it asks."""

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
        time.sleep(_PARENT_SECONDS)
    os._exit(1)


class _Slot:
    """One worker and its calls, first come first served; loky starts it with the first."""

    def __init__(self, perform: Perform) -> None:
        self._perform = perform
        self.executor = ProcessPoolExecutor(
            1, context=get_context("loky"), initializer=begin_worker, initargs=(os.getpid(),)
        )
        self.calls: list[Call] = []
        self.fresh = True
        self.dead = False
        self.surroundings: Any = None

    def submit(self, message: Message) -> Future[Message]:
        """Let the worker run a call."""
        future: Future[Message] = self.executor.submit(self._perform, message)
        return future

    def kill(self, *, wait: bool = False) -> None:
        """End the worker, and what it runs."""
        with contextlib.suppress(Exception):  # loky may be ending it already
            self.executor.shutdown(wait=wait, kill_workers=True)


class Processes:
    """The workers of this process, shared by its runs; a fork forgets them.

    Where bodies are short, a worker is sent its next call while it runs one, so that it
    need not wait for it.
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
        self._seconds: dict[tuple[str, str], float] = {}
        self._most = 1
        self._rooms: dict[int, Limit] = {}
        self._used = time.monotonic()
        self._closing = False

    def room(self, slots: int) -> Room | None:
        """Return the room of as many workers as the run asks for, and what waits at each."""
        with self._lock:
            self._most = max(self._most, slots)
            return self._rooms.setdefault(slots, Limit(2 * slots))

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
                call = self._waiting.popleft()
                slot.calls.append(call)
                fresh, slot.fresh = slot.fresh, False
            if fresh:
                call_in(_starting.loop, self._submit, slot, call)
            else:
                self._submit(slot, call)

    def _free(self) -> _Slot | None:
        """Return a worker for the call that is next, a new one if there may be more."""
        idle = [slot for slot in self._slots if not slot.calls]
        if idle:
            return idle[-1]
        if len(self._slots) < self._most:
            self._slots.append(_Slot(self._perform))
            return self._slots[-1]
        if self._is_short(self._waiting[0]):
            for slot in self._slots:
                if len(slot.calls) == 1 and self._is_short(slot.calls[0]) and not slot.fresh:
                    return slot
        return None

    def _is_short(self, call: Call) -> bool:
        return self._seconds.get(_kind(call), 1.0) < SHORT_SECONDS

    def _submit(self, slot: _Slot, call: Call) -> None:
        around = _surroundings()
        if around != slot.surroundings:
            slot.surroundings = call.message["around"] = around
        try:
            future = slot.submit(call.message)
        except Exception as error:  # noqa: BLE001 - loky tells of a broken or closed executor so
            self._lost(slot, call, _how(error), innocent=True)
            return
        _end_first(self.close)
        future.add_done_callback(functools.partial(self._done, slot, call))
        if call.stopped:
            self.stop(call)

    def _done(self, slot: _Slot, call: Call, future: Future[Message]) -> None:
        error = future.exception()
        if error is not None:
            ended = isinstance(error, ShutdownExecutorError)
            self._lost(slot, call, "it was ended" if ended else _how(error), innocent=ended)
            return
        reply = future.result()
        kind = _kind(call)
        with self._lock:
            slot.calls.remove(call)
            self._used = time.monotonic()
            if "seconds" in reply:
                self._seconds[kind] = (reply["seconds"] + self._seconds.get(kind, 0.0)) / 2
            unwanted = slot.calls[0] if slot.calls and slot.calls[0].stopped else None
        if unwanted is not None:
            self.stop(unwanted)
        self._assign()
        call.arrive(Arrival(reply))
        hearing.over(call)  # what the worker told before comes before the end

    def _lost(self, slot: _Slot, call: Call, how: str, *, innocent: bool) -> None:
        """Take note that a worker has died: over the first of its calls, and no other."""
        with self._lock:
            innocent = innocent or slot.dead
            slot.dead = True
            if slot in self._slots:
                self._slots.remove(slot)
        slot.kill()
        self._assign()
        call.arrive(Arrival(lost=how, innocent=innocent))
        hearing.over(call)

    def stop(self, call: Call) -> None:
        """Kill the worker that runs a call; one that waits there is left out later."""
        call.stopped = True
        hearing.over(call)
        with self._lock:
            slot = next((one for one in self._slots if one.calls[:1] == [call]), None)
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
            if any(slot.calls for slot in self._slots):
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


def _kind(call: Call) -> tuple[str, str]:
    """Return what calls have in common whose bodies take about as long."""
    return str(call.message.get("run")), str(call.message.get("name"))


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
