"""Bodies that run outside the kernel: sent, heard, brought back as endings.

Invariant: what a step needs is pickled before anything of it starts; an attempt has begun
when it is handed to a worker that has room. A worker that died with it is a failed attempt
of that step; where it was another call's, the call is sent again and that is none. What
comes back is evidence and payload, which the kernel judges, signs and commits.
"""

from __future__ import annotations

import functools
import json
import marshal
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, Literal, assert_never

from nbdurable.codec.outcomes import decode_error
from nbdurable.codec.shipping import pack_call
from nbdurable.codec.values import LARGE, decode
from nbdurable.errors import (
    DecodeError,
    EncodeError,
    StepError,
    StoreError,
    UsageError,
)
from nbdurable.evidence import MOVED, merge_codes, merge_files
from nbdurable.executors.remote import Arrival, Call
from nbdurable.fingerprint import syntax_of
from nbdurable.records import Kind, Payload
from nbdurable.steps.attempts import (
    Ending,
    failure,
    refused_input,
    unsaved_failure,
    with_evidence,
)

from .pools import pool_of
from .worker import Status, version

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FunctionType

    from nbdurable.commit.ledger import Ledger
    from nbdurable.executors.remote import Message, Pool
    from nbdurable.handles.handle import StepHandle
    from nbdurable.handles.scope import Scope
    from nbdurable.output.capture import Capture
    from nbdurable.steps.attempts import Running, Work
    from nbdurable.steps.options import RunSettings, StepOptions

    from .current import Current

MOST_LOST: Final = 3
"""A call that was lost so often, and that nobody saw begin, counts as what its workers died of."""

_LIVE_SECONDS: Final = 5.0
"""How long an ending waits for output that its worker told before."""


class Remote:
    """One execution's bodies outside the kernel."""

    def __init__(self, ledger: Ledger, current: Current, settings: RunSettings) -> None:
        self._ledger = ledger
        self._objects = ledger.store.objects
        self._say = ledger.observers.say
        self._current = current
        self._settings = settings
        self._apart: set[int] = set()
        self._linked: set[int] = set()
        self._checked: dict[bytes, tuple[tuple[str, tuple[int, int] | None], ...]] = {}
        self._used: dict[int, Pool] = {}

    def pool_of(self, options: StepOptions, *, is_async: bool) -> Pool | None:
        """Return where a step's body runs; None for the kernel's threads and loops.

        Raises:
            UsageError: There is no such place, or it can't do what the step asks for.
        """
        choice = options.executor
        if choice is None and not is_async:
            choice = self._settings.executor
        pool = None if choice is None else pool_of(choice)
        if options.memory is not None and (pool is None or not pool.knows_memory):
            raise UsageError(
                f"{options.name}: memory= bounds a worker process, and this step runs elsewhere: "
                f'add executor="process"'
            )
        if pool is not None:
            self._used[id(pool)] = pool
        return pool

    def pack(self, handle: StepHandle[Any]) -> None:
        """Pickle what a step's body needs, before anything of it starts.

        Raises:
            EncodeError: Something can't be pickled for a worker.
            UsageError: A module was edited and not loaded again, so workers would run other code.
        """
        work = handle.life.work
        if work is None or work.pool is None or work.packed is not None:
            return
        self._refuse_edited(work)
        try:
            work.pack(pack_call(work.function, work.arguments, work.keywords))
        except EncodeError as error:
            raise EncodeError(f"{handle.label}: {error.args[0]}", *error.args[1:]) from None

    def attempt(
        self,
        handle: StepHandle[Any],
        work: Work,
        sent: Sent,
    ) -> None:
        """Send a body to a worker; what comes of it ends the attempt, in whatever thread."""
        refused = refused_input(work)
        if refused is not None:
            sent.end(refused)
            return
        try:
            self.pack(handle)
        except (EncodeError, UsageError) as error:
            sent.end(unsaved_failure(error, "it can't be sent to a worker"))
            return
        work.recorder()
        sent.key = self._current.idempotency_key(sent.body)
        self._send(work, sent)

    def close(self) -> None:
        """The execution has ended."""
        for pool in self._used.values():
            pool.rest()

    # --- there --------------------------------------------------------------------------

    def _send(self, work: Work, sent: Sent, lost_before: int = 0) -> None:
        pool, packed = work.pool, work.packed
        assert pool is not None
        assert packed is not None
        folder, probe = self._objects.shared()
        apart = id(pool) in self._apart
        data, buffers, pieces = packed.data, list(packed.buffers), b""
        if not apart and (buffers or len(data) >= LARGE):
            data, buffers, pieces = self._by_file(data, packed.buffers)
        message: Message = {
            "version": version(),
            "run": self._settings.name,
            "name": work.options.name,
            "dask": self._settings.dask,
            "label": work.label,
            "attempt": sent.running.number,
            "key": sent.key,
            "data": data,
            "pieces": pieces,
            "buffers": [bytes(one) for one in buffers],
            "folder": folder,
            "probe": probe,
            "pid": os.getpid(),
            "memory": work.options.memory,
            "announce": work.options.timeout is not None,
            "strict": work.strict,
            "reads": work.reads,
        }
        call = Call(
            message,
            functools.partial(self._arrived, work, sent),
            functools.partial(self._heard, sent),
        )
        call.lost_before = lost_before
        message["token"] = call.token
        pool.prepare(message)
        sent.on_its_way(call, pieces)
        pool.send(call)
        if pool.link and id(pool) not in self._linked:
            self._linked.add(id(pool))
            self._say(f"Dask shows its workers at {pool.link}")

    def _by_file(
        self, data: bytes, buffers: tuple[memoryview, ...]
    ) -> tuple[bytes, list[memoryview], bytes]:
        """Write what is large of a call into a file; return the rest, and where that is."""
        with self._objects.writer() as writer:
            if len(data) >= LARGE:
                writer.write(memoryview(data))
                writer.end()
                data = b""
            for one in buffers:
                writer.write(one)
                writer.end()
        return data, [], writer.pieces

    def _refuse_edited(self, work: Work) -> None:
        """Refuse code of modules whose files say something else: workers import those files."""
        code = work.code
        if code is None or code.covered is None:
            return
        known = self._checked.get(code.digest)
        if known is not None and all(_stat(path) == stat for path, stat in known):
            return
        functions = [one for one in code.covered.functions() if _is_sent_by_name(one)]
        for one in functions:
            if syntax_of(one.__code__, one.__globals__) is None:
                raise UsageError(
                    f"{work.label}: {one.__qualname__} in {one.__code__.co_filename} was edited "
                    f"and not loaded again, so a worker would run other code than this kernel: "
                    f"reload the module (%autoreload does), or restart the kernel"
                )
        paths = {one.__code__.co_filename for one in functions}
        self._checked[code.digest] = tuple((path, _stat(path)) for path in sorted(paths))

    # --- meanwhile ------------------------------------------------------------------------

    def _heard(self, sent: Sent, told: Message) -> None:
        """Take what a worker tells while the body runs."""
        if "began" in told:
            sent.begin()
        elif "output" in told:
            sent.write(told["output"])
        elif "progress" in told:
            self._progress(sent, told["progress"])

    def _progress(self, sent: Sent, told: list[Any]) -> None:
        if told:
            self._current.progress(sent.body, told[0], told[1])

    # --- back -----------------------------------------------------------------------------

    def _arrived(self, work: Work, sent: Sent, arrival: Arrival) -> None:
        """Take what came back; in whatever thread."""
        try:
            ending = self._ending(work, sent, arrival)
        except Exception as error:  # noqa: BLE001 - a defect, raised where the step is waited for
            ending = unsaved_failure(error, "its reply could not be read")
        if ending is not None:
            self._objects.give_up(sent.pieces)
            sent.end(ending)

    def _ending(self, work: Work, sent: Sent, arrival: Arrival) -> Ending | None:
        """Return how the attempt ended; None if the call was sent again."""
        reply = arrival.reply
        if reply is None:
            return self._lost(work, sent, arrival)
        status = Status(reply["status"])
        if status is Status.APART and work.pool is not None and id(work.pool) not in self._apart:
            self._apart.add(id(work.pool))
            self._send(work, sent)
            return None
        if status is not Status.ENDED:
            return unsaved_failure(_refusal(work, status, reply), "no worker could take it")
        sent.receive(reply)
        self._progress(sent, reply["progress"])
        ending = self._outcome(work, reply)
        if (recorder := work.seen) is not None:
            if reply["shared"]:  # elsewhere a path means another file
                merge_files(recorder, reply["files"])
            merge_codes(recorder, [(marshal.loads(code), *rest) for code, *rest in reply["codes"]])  # noqa: S302 - of a worker of ours
            with_evidence(work, ending, recorder)
            # The generators that a worker moves are its own.
            ending.drop_files(MOVED)
        return ending

    def _lost(self, work: Work, sent: Sent, arrival: Arrival) -> Ending | None:
        call = sent.call
        assert call is not None
        assert work.pool is not None
        if arrival.refused:
            return unsaved_failure(
                UsageError(f"{work.label}: {arrival.refused}"), "no worker could take it"
            )
        if arrival.innocent and call.lost_before + 1 < MOST_LOST:
            self._send(work, sent, call.lost_before + 1)
            return None
        return failure(StepError(f"{work.label}: {work.pool.name} died: {arrival.lost}"))

    def _outcome(self, work: Work, reply: Message) -> Ending:
        """Return the ending that a worker's reply tells of."""
        kind = Kind(reply["kind"])
        if reply["stopped"]:
            return Ending(
                Kind.ERROR,
                error=StoreError(reply["error"]),
                interrupt=True,
                unsaved=reply["unsaved"],
            )
        if reply["data"] is None:
            what = reply["error"] or reply["unsaved"]
            if kind is Kind.ERROR:
                error: Exception = StepError(f"{work.label}: {what}")
            else:
                cure = 'return something that pickles, or run the step with executor="threads"'
                error = EncodeError(
                    f"{work.label}: its result can't come back from a worker: {what}", cure
                )
            return unsaved_failure(
                error, reply["unsaved"] or what, final=kind is Kind.VALUE or reply["final"]
            )
        payload = Payload(reply["data"], reply["pieces"], frozenset(reply["modules"]))
        note, final = reply["note"], reply["final"]
        try:
            if kind is Kind.ERROR:
                failed = decode_error(payload.data, say=self._say)
                return Ending(
                    kind, error=failed, raised=failed, payload=payload, note=note, final=final
                )
            value = decode(payload.data, payload.pieces, self._objects, say=self._say)
        except DecodeError as error:
            unreadable = DecodeError(
                f"{work.label}: what its worker gave can't be restored here: {error}"
            )
            return unsaved_failure(unreadable, str(error))
        if payload.pieces:
            self._objects.remember(payload.pieces)
        return Ending(kind, value=value, payload=payload, note=note, final=final)


class Sent:
    """One attempt whose body is outside the kernel; whoever ends it gives its room back."""

    def __init__(
        self, running: Running, body: Scope, pool: Pool, begun: Callable[[], object]
    ) -> None:
        """Take an attempt, where its body stands, its pool, and what is called when it begins."""
        self.running = running
        self.body = body
        self.key = ""
        self.call: Call | None = None
        self.pieces = b""
        self._pool = pool
        self.begun = begun
        self._stopped = False
        self._lock = threading.RLock()
        self._sources: dict[int, object] = {}
        self._heard = threading.Condition()
        self._pieces_heard = 0

    def begin(self) -> None:
        """Take note that a worker has begun the body: its timeout counts from now."""
        begun, self.begun = self.begun, _nothing
        begun()

    def on_its_way(self, call: Call, pieces: bytes) -> None:
        """Take note of the call that is about to be sent, and of the files that it needs."""
        with self._lock:
            self.call, self.pieces = call, pieces
            call.stopped = self._stopped

    def stop(self) -> None:
        """End the work itself: its ending is nobody's any more."""
        with self._lock:
            self._stopped = True
            call = self.call
        self.body.end()
        if call is not None:
            self._pool.stop(call)

    def end(self, ending: Ending) -> None:
        """End the attempt, and after that make room for others."""
        self.body.leave()
        try:
            self.running.end(ending)
        finally:
            self.body.end()

    def write(self, pieces: list[list[Any]]) -> None:
        """Take output that was told while the body runs."""
        with self._heard:
            self._write(pieces)
            self._pieces_heard += 1
            self._heard.notify_all()

    def receive(self, reply: Message) -> None:
        """Take the rest of the output, once all that was told before is there."""
        with self._heard:
            self._heard.wait_for(lambda: self._pieces_heard >= reply["sent"], _LIVE_SECONDS)
            self._write([[kind, 0, data] for kind, data in reply["output"]])

    def _write(self, pieces: list[list[Any]]) -> None:
        capture: Capture = self.running.capture
        for kind, source, data in pieces:
            if kind == "retract":
                taken = {self._sources[one] for one in source if one in self._sources}
                capture.retract(taken, more=bool(data))
                continue
            place = self._sources.setdefault(source, _Source())
            if kind == "display":
                capture.display(json.loads(data), data, place)
            else:
                capture.write(kind, data, place)


def _nothing() -> None:
    """Take note of no second beginning."""


class _Source:
    """Stands for what wrote something in a worker."""


def _is_sent_by_name(function: FunctionType) -> bool:
    """Tell whether a worker would import a function, and not get it from here."""
    module: Any = sys.modules.get(function.__module__)
    if module is None or function.__module__ == "__main__":
        return False
    found = module
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is function or getattr(found, "__wrapped__", None) is function


def _stat(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _refusal(
    work: Work,
    status: Literal[Status.APART, Status.OTHER_VERSION, Status.UNREADABLE],
    reply: Message,
) -> Exception:
    """Return the error for a call that no worker could take."""
    if status is Status.OTHER_VERSION:
        theirs, mine = reply["version"], version()
        return UsageError(
            f"{work.label}: the workers have {theirs[0]} {theirs[1]} and nbdurable {theirs[2]}, "
            f"this kernel {mine[0]} {mine[1]} and nbdurable {mine[2]}: give them the same"
        )
    if status is Status.UNREADABLE:
        return DecodeError(
            f"{work.label}: a worker can't load the call: {reply['why']}; install there what is "
            f"missing, or make it inside the step"
        )
    if status is Status.APART:
        return StepError(f"{work.label}: a worker does not see the files of large arguments")
    assert_never(status)
