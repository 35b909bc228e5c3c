"""Any `concurrent.futures.Executor` as a place where bodies run.

Invariant: a pool that broke ended calls of which one is to blame; the others are sent again.
A broken process pool of the standard library is replaced by one made alike. Nothing is
submitted, and no lock of ours waited for, in the thread in which an executor says that a call
failed: it may hold the executor's own lock.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections import deque
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

from .channel import hearing
from .limits import Limit
from .remote import Arrival

if TYPE_CHECKING:
    from concurrent.futures import Future

    from .limits import Room
    from .remote import Call, Message, Perform


class Futures:
    """One executor, and the calls that it has."""

    link = ""
    name = "the worker of its executor"
    knows_memory = False

    def __init__(self, perform: Perform, executor: Executor) -> None:
        self._perform = perform
        self._given = weakref.ref(executor)
        self._made: Executor | None = None  # in the place of one that broke
        self._lock = threading.Lock()
        self._under_way: dict[Call, Future[Message]] = {}
        self._room: Limit | None = None
        self._alone: set[Call] = set()
        self._suspects: list[Call] = []
        self._failing = threading.Lock()  # held for a moment, and no other is taken under it
        self._failed: deque[tuple[Call, Future[Message]]] = deque()
        self._settling = False

    @property
    def _executor(self) -> Executor:
        found = self._made or self._given()
        assert found is not None, "a step's options hold it"
        return found

    def room(self, slots: int) -> Room | None:
        """Return the room of its workers; of as many as the run asks for where it does not tell."""
        with self._lock:
            if self._room is None:
                workers = getattr(self._executor, "_max_workers", None)
                self._room = Limit(workers if isinstance(workers, int) else slots)
            return self._room

    @staticmethod
    def prepare(message: Message) -> None:
        """Say where a worker of this machine tells how it goes."""
        message["channel"] = hearing.address()

    def send(self, call: Call) -> None:
        """Submit a call; one that was under way when the pool broke is run alone."""
        with self._lock:
            if call.lost_before:
                self._suspects.append(call)
            elif self._suspects or self._alone:
                self._suspects.append(call)  # it waits, so that it is not lost with a suspect
        if call.lost_before or call in self._suspects:
            self._next_alone()
            return
        self._submit(call)

    def _next_alone(self) -> None:
        """Send the next of those that run alone, once nothing else is under way."""
        with self._lock:
            if self._under_way or self._alone or not self._suspects:
                return
            call = self._suspects.pop(0)
            self._alone.add(call)
        self._submit(call)

    def _submit(self, call: Call) -> None:
        hearing.expect(call)
        try:
            with self._lock:
                future = self._executor.submit(self._perform, call.message)
                self._under_way[call] = future
        except BrokenExecutor as error:
            if not self._renew():
                self._over(call)
                call.arrive(Arrival(refused=_broken(error)))
                return
            self._submit(call)
            return
        except RuntimeError as error:
            self._over(call)
            call.arrive(Arrival(refused=f"its executor takes no more work: {error}"))
            return
        future.add_done_callback(functools.partial(self._done, call))
        if call.stopped:
            self.stop(call)

    def _done(self, call: Call, future: Future[Message]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._ended(call, future)
            return
        with self._failing:
            self._failed.append((call, future))
            begins, self._settling = not self._settling, True
        if begins:
            threading.Thread(target=self._settle, name="nbdurable-failed", daemon=True).start()

    def _settle(self) -> None:
        """Take in what failed, one after the other, until nothing is left."""
        while True:
            with self._failing:
                if not self._failed:
                    self._settling = False
                    return
                failed = self._failed.popleft()
            self._ended(*failed)

    def _ended(self, call: Call, future: Future[Message]) -> None:
        with self._lock:
            alone = call in self._alone
            self._under_way.pop(call, None)
            self._alone.discard(call)
        if future.cancelled():
            call.arrive(Arrival(lost="it was cancelled", innocent=True))
        elif (error := future.exception()) is None:
            call.arrive(Arrival(future.result()))
        elif isinstance(error, BrokenExecutor):
            # Which call's worker died first nobody says: each that was under way is tried alone.
            call.arrive(Arrival(lost=f"{type(error).__name__}: {error}", innocent=not alone))
        else:
            call.arrive(Arrival(refused=f"its executor failed: {type(error).__name__}: {error}"))
        hearing.over(call)  # what its worker told before comes before the end
        self._next_alone()

    def _over(self, call: Call) -> None:
        hearing.over(call)
        with self._lock:
            self._under_way.pop(call, None)
            self._alone.discard(call)

    def _renew(self) -> bool:
        """Make another pool like the broken one, where that can be; False if it can't."""
        with self._lock:
            if type(self._executor) is not ProcessPoolExecutor:
                return False
            old: Any = self._executor
            self._made = ProcessPoolExecutor(
                old._max_workers,  # noqa: SLF001 - the standard library tells it in no other way
                mp_context=old._mp_context,  # noqa: SLF001
                initializer=old._initializer,  # noqa: SLF001
                initargs=old._initargs,  # noqa: SLF001
            )
            return True

    def stop(self, call: Call) -> None:
        """Take a call back that no worker has begun; one that runs is left to itself."""
        call.stopped = True
        hearing.over(call)
        with self._lock:
            future = self._under_way.get(call)
            if call in self._suspects:
                self._suspects.remove(call)
        if future is not None:
            future.cancel()

    def rest(self) -> None:
        """End, after its work, a pool that was made in the place of a broken one."""
        with self._lock:
            made = self._made
        if made is not None and not self._under_way:
            made.shutdown(wait=False)
            with self._lock:
                self._made = None


def _broken(error: BaseException) -> str:
    return f"its executor is broken: {error}; make a new one"
