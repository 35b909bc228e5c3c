"""A cluster of Dask as a place where bodies run: a body is one of Dask's own tasks.

Invariant: what waits to be sent goes in one message, what has come back is fetched in one.
Dask runs what a dead worker had on another one by itself; here that is noticed, by a second
worker that begins the same call, and is a failed attempt of that step.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import signal
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

import dask
import distributed
from distributed.scheduler import KilledWorker

from .channel import hearing
from .remote import Arrival, end_process, interrupt_body, perform_batch
from .short import Short, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .limits import Room
    from .remote import Call, Message, Perform

_dask: Any = distributed  # whose functions have no types
_TOPIC = "nbdurable"
_MOST_AT_ONCE = 1000
_OVER = frozenset({"closing", "closed"})
_LOOK_SECONDS = 0.2
"""How often it is looked whether a client of which nothing comes back is closed."""


class Cluster:
    """One client of Dask, and the calls that it has."""

    name = "its worker of Dask"
    knows_memory = False

    def __init__(self, perform: Perform, client: Any) -> None:
        self._perform = perform
        self._client: Any = client
        self._own: Any = None
        self._lock = threading.Lock()
        self._queued: deque[Call] = deque()
        self._come = threading.Semaphore(0)
        self._calls: dict[str, tuple[Call, Any]] = {}
        self._batched: dict[str, list[Call]] = {}
        self._short = Short()
        self._back: _Back | None = None
        self._given = client is not None
        self._address = ""
        self._link = ""
        self._process = os.getpid()
        self._threads = False

    def room(self, slots: int) -> Room | None:
        """Return nothing: the scheduler lines up what comes."""
        del slots
        return None

    def prepare(self, message: Message) -> None:
        """Say under which topic its worker tells how it goes."""
        message["topic"] = _TOPIC

    @property
    def link(self) -> str:
        """Where Dask shows what its workers do; nothing before the first call."""
        return self._link

    def send(self, call: Call) -> None:
        """Line a call up for the next message to the scheduler."""
        with self._lock:
            self._queued.append(call)
            started, self._threads = self._threads, True
        hearing.expect(call)
        if not started:
            threading.Thread(target=self._send_on, name="nbdurable-dask", daemon=True).start()
        self._come.release()

    def stop(self, call: Call) -> None:
        """Take a call back, and end its body.

        A worker of our own cluster is ended with it; on another's, where bodies may have
        neighbours, it is ended where its Python code stands.
        """
        call.stopped = True
        hearing.over(call)
        with self._lock:
            _, future = self._calls.pop(call.token, (None, None))
            if call in self._queued:
                self._queued.remove(call)
            alone = future is not None and len(self._batched.get(future.key, ())) == 1
        # Others of a batch go on; a body that is known to take long is ended all the same.
        if future is not None and (alone or call.workers):
            threading.Thread(target=self._end, args=(call, future), daemon=True).start()

    def _end(self, call: Call, future: Any) -> None:
        client: Any = self._client
        # The scheduler may be gone, with all that it had.
        with contextlib.suppress(Exception):
            if len(self._batched.get(future.key, ())) <= 1:
                client.cancel([future], force=True)
            end = interrupt_body if self._own is None else end_process
            client.run(end, call.token, on_error="ignore")

    def rest(self) -> None:
        """Keep the cluster: a notebook's next cell uses it again."""

    def close(self) -> None:
        """End a cluster of our own at once: this process ends."""
        own, self._own = self._own, None
        if own is None or os.getpid() != self._process:
            return
        for nanny in tuple(own.workers.values()):
            with contextlib.suppress(Exception):  # it may not have started, or have ended
                os.kill(nanny.process.pid, signal.SIGKILL)
        with contextlib.suppress(Exception):  # nothing is left to be closed in order
            if self._client is not None:
                self._client.close(timeout=1)
            own.close(timeout=1)

    # --- there ------------------------------------------------------------------------------

    def _connect(self) -> Any:
        """Return a client that is connected; where ours was lost, another one.

        Raises:
            ConnectionError: The client that was given is closed.
        """
        if self._client is not None and self._client.status in _OVER:
            if self._given:
                raise ConnectionError(f"its client ({self._address or 'not used yet'}) is closed")
            before, self._client, self._own, self._back = self._back, None, None, None
            if before is not None:
                before.expect([])  # its thread sees that it has no place any more
        if self._client is None:
            self._client = self._connected()
        if self._back is None:
            client = self._client
            client.subscribe_topic(_TOPIC, self._told)
            self._link = str(client.dashboard_link or "")
            self._address = str(client.scheduler.address)
            self._back = back = _Back(client)
            threading.Thread(
                target=self._fetch_on, args=(back,), name="nbdurable-dask", daemon=True
            ).start()
        return self._client

    def _connected(self) -> Any:
        """Connect to the scheduler that Dask is configured for, or start a cluster here."""
        if dask.config.get("scheduler-address", None):
            return _dask.Client(set_as_default=False)
        # A lost worker is an attempt of ours: Dask is not to try again by itself.
        with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
            self._own = _dask.LocalCluster(
                n_workers=_cores(),
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",
            )
        atexit.register(self.close)
        return _dask.Client(self._own, set_as_default=False)

    def _send_on(self) -> None:
        while True:
            self._come.acquire()
            with self._lock:
                calls = [
                    self._queued.popleft() for _ in range(min(len(self._queued), _MOST_AT_ONCE))
                ]
            calls = [call for call in calls if not call.stopped]
            if not calls:
                continue
            try:
                client = self._connect()
                self._submit(client, calls)
            except Exception as error:  # noqa: BLE001 - what the network and Dask raise
                refused = f"no cluster of Dask could take it: {type(error).__name__}: {error}"
                for call in calls:
                    self._arrive(call, Arrival(refused=refused))

    def _submit(self, client: Any, calls: list[Call]) -> None:
        """Send calls, with the settings of Dask that they ask for, in one message each."""
        groups: dict[str, list[Call]] = {}
        for call in calls:
            groups.setdefault(repr(call.message["dask"]), []).append(call)
        for group in groups.values():
            batches = self._batches(group)
            keys = [f"{one[0].message['name']}-{one[0].token}" for one in batches]
            with self._lock:
                self._batched.update(zip(keys, batches, strict=True))
            futures = client.map(
                functools.partial(perform_batch, self._perform),
                [[call.message for call in batch] for batch in batches],
                key=keys,
                pure=False,
                **(group[0].message["dask"] or {}),
            )
            with self._lock:
                for batch, future in zip(batches, futures, strict=True):
                    self._calls.update((call.token, (call, future)) for call in batch)
            back = self._back
            assert back is not None, "it was connected"
            back.expect(futures)
            for call in group:
                if call.stopped:
                    self.stop(call)

    def _batches(self, calls: list[Call]) -> list[list[Call]]:
        """Return calls put together where their bodies are known to be short."""
        waiting: dict[tuple[str, str], list[Call]] = {}
        found = []
        for call in calls:
            if self._short.holds(call):
                waiting.setdefault(kind_of(call), []).append(call)
            else:
                found.append([call])
        for alike in waiting.values():
            workers = sum(self._client.nthreads().values()) if len(alike) > 1 else 1
            size = self._short.batch(alike[0], len(alike), workers)
            found += [alike[at : at + size] for at in range(0, len(alike), size)]
        return found

    # --- back -------------------------------------------------------------------------------

    def _fetch_on(self, back: _Back) -> None:
        """Take what comes back by one client, until another one has its place."""
        while self._back is back:
            batch = back.next_batch()
            try:
                self._take(batch, back.client)
            except Exception as error:  # noqa: BLE001 - what the network and Dask raise
                self._lose(batch, f"{type(error).__name__}: {error}")
            if not batch and back.client.status in _OVER:
                self._lose_all(back)

    def _lose_all(self, back: _Back) -> None:
        """End every call of a client that is closed, and of which nothing comes back any more."""
        with self._lock:
            lost = [one for one in self._calls.values() if one[1].client is back.client]
            for call, future in lost:
                del self._calls[call.token]
                self._batched.pop(future.key, None)
        back.forget()
        for call, _ in lost:
            self._arrive(call, Arrival(refused=self._gone()))

    def _gone(self) -> str:
        return (
            f"the cluster of Dask at {self._address} was lost while it ran: start one, and run the "
            f"cell again to resume; what has finished is saved"
        )

    def _lose(self, futures: list[Any], why: str) -> None:
        """Let calls that could not be fetched be sent again: nobody may wait for them for good."""
        for future in futures:
            with self._lock:
                batch = self._batched.pop(future.key, [])
                left = [one for one in batch if self._calls.pop(one.token, None) is not None]
            for call in left:
                self._arrive(call, Arrival(lost=why, innocent=True))

    def _take(self, futures: list[Any], client: Any) -> None:
        whole = [one for one in futures if one.status == "finished"]
        replies: dict[Any, list[Message]] = {}
        if whole:
            try:
                gathered = client.gather(whole, errors="raise")
                replies = dict(zip([one.key for one in whole], gathered, strict=True))
            except Exception:  # noqa: BLE001 - one of them is lost: each is asked for by itself
                replies = self._each(client, whole)
        for future in futures:
            with self._lock:
                batch = self._batched.pop(future.key, [])
                there = [self._calls.pop(one.token, None) is not None for one in batch]
            given = replies.get(future.key)
            for at, call in enumerate(batch):
                if not there[at]:
                    continue  # it was stopped, or is known to be lost
                if given is None and future.status != "error" and client.status != "running":
                    self._arrive(call, Arrival(refused=self._gone()))
                elif given is None:
                    self._arrive(call, _failed(call, future))
                elif given[at]["status"] == "later":
                    self.send(call)
                else:
                    self._short.learn(call, given[at])
                    self._arrive(call, Arrival(given[at]))

    @staticmethod
    def _each(client: Any, futures: list[Any]) -> dict[Any, list[Message]]:
        found = {}
        for one in futures:
            with contextlib.suppress(Exception):  # told as lost
                found[one.key] = client.gather(one)
        return found

    def _told(self, event: tuple[float, Message]) -> None:
        """Take what a worker tells; the loop of the client calls it."""
        _, message = event
        if "began" in message:
            token = str(message["token"])
            with self._lock:
                call, future = self._calls.get(token, (None, None))
            if call and future and call.workers and message["began"] not in call.workers:
                with self._lock:
                    self._calls.pop(token, None)
                future.cancel(force=True, asynchronous=True)
                lost = f"{call.workers[0]} is gone"
                threading.Thread(
                    target=self._arrive, args=(call, Arrival(lost=lost)), daemon=True
                ).start()
                return
        hearing.told(message)

    @staticmethod
    def _arrive(call: Call, arrival: Arrival) -> None:
        call.arrive(arrival)
        hearing.over(call)


class _Back:
    """What comes back by one client of Dask; waited for, also while nothing is expected."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._done = self._new()
        self._expected = threading.Semaphore(0)

    def _new(self) -> Any:
        return _dask.as_completed([], loop=self.client.loop, raise_errors=False)

    def expect(self, futures: list[Any]) -> None:
        """Wait for these, too."""
        self._done.update(futures)
        self._expected.release()

    def next_batch(self) -> list[Any]:
        """Return what has come back; nothing where that is long in coming."""
        if self._done.is_empty():
            self._expected.acquire()
            return []
        with self._done.thread_condition:
            if self._done.queue.empty():
                self._done.thread_condition.wait(_LOOK_SECONDS)
        batch: list[Any] = self._done.next_batch(block=False)
        return batch

    def forget(self) -> None:
        """Wait for nothing of what was expected."""
        self._done = self._new()


def _failed(call: Call, future: Any) -> Arrival:
    if future.status != "error":
        return Arrival(lost="the scheduler has given it up", innocent=not call.workers)
    error = future.exception()
    if isinstance(error, KilledWorker):
        worker = getattr(error.last_worker, "address", "")
        began = bool(call.workers)
        return Arrival(lost=f"{worker} is gone", innocent=not began)
    return Arrival(refused=f"Dask could not run it: {type(error).__name__}: {error}")


def _cores() -> int:
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable is not None else os.cpu_count() or 1


def teller(topic: str) -> tuple[str, Callable[[Message], object]]:
    """Return, in a worker's body, what the worker is called and what tells the kernel something."""
    worker = _dask.get_worker()

    def tell(message: Message) -> None:
        worker.log_event(topic, message)

    return str(worker.address), tell


_known: weakref.WeakKeyDictionary[Any, Cluster] = weakref.WeakKeyDictionary()
_default: list[Cluster] = []


def cluster(perform: Perform, client: Any) -> Cluster:
    """Return the cluster of a client; without one that which Dask is configured for, or our own."""
    if client is not None:
        found = _known.get(client)
        if found is None:
            found = _known[client] = Cluster(perform, client)
        return found
    if not _default:
        _default.append(Cluster(perform, None))
    return _default[0]


os.register_at_fork(after_in_child=_default.clear)
