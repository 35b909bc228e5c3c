"""What runs in a worker, outside the kernel: one attempt's body, from plain data to plain data.

Invariant: the kernel alone writes the store and signs. A body here knows its attempt, its
key and can tell how far it is; it can start and save nothing. What it has written, read and
run goes back with its outcome; a large value lies, unsigned, in a file of the store's form.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import linecache
import marshal
import os
import platform
import resource
import sys
import threading
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nbdurable import evidence
from nbdurable.codec.shipping import unpack_call
from nbdurable.codec.values import pickles_in
from nbdurable.errors import DecodeError, NotInRunError, StoreError
from nbdurable.executors.channel import telling
from nbdurable.executors.remote import bodies, stopped
from nbdurable.fingerprint import Places
from nbdurable.handles import scope
from nbdurable.handles.scope import Scope
from nbdurable.output import streams
from nbdurable.output.capture import Capture
from nbdurable.records import Kind
from nbdurable.steps.attempts import Work, attempt, explain
from nbdurable.steps.options import RunSettings, plain_options
from nbdurable.store import Objects

from .current import refuse_numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Sequence

    from nbdurable.evidence import Recorder
    from nbdurable.executors.remote import Message
    from nbdurable.records import Message as Output
    from nbdurable.steps.attempts import Ending

LIVE_SECONDS: Final = 0.1
"""A body that takes longer tells that it has begun, and what it writes, so often."""

WAY_OUT: Final = 'run this step in the kernel, with @step(executor="threads")'


def version() -> list[str]:
    """Return what must be the same here and in the kernel, for code is sent compiled."""
    return [platform.python_implementation(), platform.python_version(), _package_version()]


def _package_version() -> str:
    return str(vars(sys.modules["nbdurable"])["__version__"])


# --- what a body can ask ------------------------------------------------------------------


class _Current:
    """What the body of a remote step can ask about itself."""

    def __init__(self, told: Message, tell: Callable[[Message], object]) -> None:
        self._told = told
        self._tell = tell
        self.progressed: list[float | None] = []
        self._last = 0.0

    def attempt(self, _: Scope) -> int:
        return int(self._told["attempt"])

    def idempotency_key(self, _: Scope) -> str:
        return str(self._told["key"])

    def progress(self, _: Scope, done: float, total: float | None) -> None:
        refuse_numbers(done, total)
        self.progressed = [done, total]
        now = time.monotonic()
        if done == total or now - self._last >= LIVE_SECONDS:
            self._last = now
            self._tell({"progress": self.progressed})

    def save(self, _: Scope, value: object) -> None:
        del value
        _refuse("current_step().save()")

    def saved(self, _: Scope, default: object) -> Any:
        del default
        _refuse("current_step().saved()")


class _Run:
    """Stands for the run in a worker, where nothing can be started.

    It is its own ``calls``, ``combining`` and ``timers``: each verb of theirs is refused.
    """

    def __init__(self, name: str, current: _Current) -> None:
        self.settings = RunSettings(name)
        self.current = current

    def is_of_parent(self) -> bool:
        return False

    def time(self) -> float:
        return time.time()

    def __getattr__(self, name: str) -> Any:
        if name in {"calls", "combining", "timers"}:
            return self

        def refused(_: Scope, *arguments: Any, **__: Any) -> None:
            options = arguments[-1] if arguments else None
            called = getattr(options, "name", "")
            _refuse(f"{called}.{name}()" if called and name != "call" else f"{called or name}()")

        return refused


def _refuse(operation: str) -> None:
    raise NotInRunError(operation, "it is used in a step that runs outside the kernel", WAY_OUT)


# --- what it tells meanwhile --------------------------------------------------------------


class _Relay:
    """Where a body's output goes while it runs: to the kernel, a few times a second."""

    alone = True
    raw = True
    lasting = False
    bars = False

    def __init__(self, tell: Callable[[Message], object]) -> None:
        self.sent = 0
        self._tell = tell
        self._lock = threading.Lock()
        self._pieces: list[list[Any]] = []
        self._sources: dict[int, object] = {}

    def emit(self, kind: str, data: str, source: object) -> None:
        """Show a piece."""
        with self._lock:
            self._sources[id(source)] = source  # held, so that its id stays its own
            last = self._pieces[-1] if self._pieces else None
            if last is not None and last[:2] == [kind, id(source)] and kind in {"stdout", "stderr"}:
                last[2] += data
            else:
                self._pieces.append([kind, id(source), data])

    def move(self, bar: object, state: str) -> None:
        """Nothing moves apart: all is told, and the kernel says where it is shown."""

    def deliver(self, messages: Sequence[Output]) -> None:
        """Show messages."""
        for one in messages:
            self.emit(one.kind, one.data, self)

    def retract(self, sources: Container[object], *, more: bool) -> None:
        """Take back what came from `sources`."""
        with self._lock:
            ids = [key for key, source in self._sources.items() if source in sources]
            self._pieces.append(["retract", ids, more])

    def flush(self, kind: str) -> None:
        """Everything goes on by itself."""

    def send(self) -> None:
        """Tell the kernel what has come."""
        with self._lock:
            pieces, self._pieces = self._pieces, []
            if pieces:
                self.sent += 1
        if pieces:
            self._tell({"output": pieces})


class _Live:
    """Tells, of bodies that take longer, that they began and what they write."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bodies: dict[int, tuple[Capture, _Relay, Callable[[], object]]] = {}
        self._followed: set[int] = set()
        self._thread: threading.Thread | None = None
        self._come = threading.Event()

    def begin(self, capture: Capture, relay: _Relay, tell: Callable[[], object]) -> None:
        """Tell of this body from now on."""
        with self._lock:
            self._bodies[id(capture)] = capture, relay, tell
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._tell_on, name="nbdurable-live", daemon=True
                )
                self._thread.start()
        self._come.set()

    def end(self, capture: Capture) -> None:
        """Tell nothing more of it."""
        with self._lock:
            self._bodies.pop(id(capture), None)
            self._followed.discard(id(capture))

    def _tell_on(self) -> None:
        seen: set[int] = set()
        while True:
            self._come.wait()
            time.sleep(LIVE_SECONDS)  # what comes meanwhile is told with it
            with self._lock:
                bodies = dict(self._bodies)
                if not bodies:
                    self._come.clear()
            for key, (capture, relay, tell) in bodies.items():
                if key in seen and key not in self._followed:
                    self._followed.add(key)
                    tell()
                    capture.follow(relay)  # type: ignore[arg-type] # it has what a destination has
                relay.send()
            seen = set(bodies)


_live = _Live()


class Status(StrEnum):
    """How a worker answers a call; its reply holds the text."""

    ENDED = "ended"
    APART = "apart"
    """It does not see the files that came beside the call."""
    OTHER_VERSION = "version"
    UNREADABLE = "unreadable"


# --- one attempt --------------------------------------------------------------------------


def perform(message: Message) -> Message:
    """Run one attempt's body; called in a worker, with what the kernel has sent."""
    if message["version"] != version():
        return {"status": Status.OTHER_VERSION.value, "version": version()}
    _surround(message.get("around"))
    _forget_edited()
    objects = Objects.of_worker(Path(message["folder"]), message["pid"])
    if not (shared := _shares(message)) and message["pieces"]:
        return {"status": Status.APART.value}
    try:
        buffers: list[Any] = message["buffers"]
        data = message["data"]
        if message["pieces"]:
            buffers = objects.restore(message["pieces"], proven=pickles_in(data))
            data = data or buffers.pop(0)
        call = unpack_call(data, buffers)
    except (DecodeError, StoreError) as error:
        return {"status": Status.UNREADABLE.value, "why": str(error)}
    with _watching(message["pid"]):
        return _performed(message, call, objects if shared else None)


def _performed(
    message: Message,
    call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]],
    objects: Objects | None,
) -> Message:
    function, arguments, keywords = call
    me, tell = _teller(message)
    relay, capture = _Relay(tell), Capture()
    current = _Current(message, tell)
    run: Any = _Run(message["run"], current)
    work = Work(
        label=message["label"],
        function=function,
        arguments=arguments,
        keywords=keywords,
        options=plain_options(message["label"]),
        code=None,
        inputs=None,
        context=contextvars.copy_context(),
        is_async=False,
        objects=objects,
        strict=message["strict"],
        reads=message["reads"],
    )
    context = contextvars.copy_context()
    context.run(scope.current.set, Scope(run, b"", 0, asynchronous=False))
    if message["announce"]:
        tell({"began": me})
    began = time.perf_counter()
    bodies[message["token"]] = threading.get_ident()
    if message["token"] in stopped:
        bodies.pop(message["token"])
        return {"status": Status.UNREADABLE.value, "why": "it was cancelled"}
    _live.begin(capture, relay, lambda: tell({"began": me}))
    try:
        with _bounded(message["memory"]):
            ending = attempt(work, capture, context)
    finally:
        bodies.pop(message["token"], None)
        _live.end(capture)
    messages = capture.finished()
    rest = messages if capture.destination is None else capture.unsent
    relay.send()
    return {
        **_outcome(ending),
        "shared": objects is not None,
        "output": [[one.kind, one.data] for one in rest],
        "sent": relay.sent,
        "seconds": time.perf_counter() - began,
        "progress": current.progressed,
        **_seen(work.seen),
    }


def _outcome(ending: Ending) -> Message:
    payload = ending.payload
    return {
        "status": Status.ENDED.value,
        "kind": ending.kind.value if ending.kind is Kind.VALUE else Kind.ERROR.value,
        "data": payload.data if payload is not None else None,
        "pieces": payload.pieces if payload is not None else b"",
        "modules": sorted(payload.modules) if payload is not None else [],
        "error": explain(ending.error) if ending.error is not None else "",
        "unsaved": ending.unsaved,
        "note": ending.note,
        "final": ending.final,
        "stopped": ending.interrupt,
    }


def _seen(recorder: Recorder | None) -> Message:
    """Return what the body was seen to do, for the kernel to judge."""
    if recorder is None:
        return {"files": [], "codes": []}
    files = [
        (name, one.path, one.first, one.before, one.use)
        for name, one in recorder.files.copy().items()
        if one.use
    ]
    codes = [
        (
            marshal.dumps(one.code),
            str(one.space.get("__name__", "")),
            one.space.get("__file__"),
            (one.owner.__module__, one.owner.__qualname__) if one.owner is not None else None,
        )
        for one in recorder.codes.copy().values()
    ]
    return {"files": files, "codes": codes}


def _teller(message: Message) -> tuple[str, Callable[[Message], object]]:
    """Return what this worker is called, and what tells the kernel something of this call."""
    token, topic = message["token"], message.get("topic")
    send: Callable[[Message], object]
    if topic is not None:
        from nbdurable.executors.clusters import teller  # noqa: PLC0415 - only Dask's workers have it

        name, send = teller(topic)
        return name, lambda told: send({"token": token, **told})
    send = telling.teller(*message["channel"])
    return f"process {os.getpid()}", lambda told: send({"token": token, **told})


def _shares(message: Message) -> bool:
    """Tell whether the folder of the store's objects is the kernel's own."""
    return os.path.exists(os.path.join(message["folder"], message["probe"]))  # noqa: PTH110, PTH118


_installed: list[int] = []
"""This process, once it is a worker whose streams are replaced for good."""


@contextlib.contextmanager
def _watching(kernel: int) -> Iterator[None]:
    """Keep a body's output apart in this process, and see what it runs and opens.

    A worker does so until it ends; the kernel itself, in threads of the user's, for the body.
    """
    mine = os.getpid()
    in_kernel = mine == kernel
    if in_kernel or mine not in _installed:
        streams.install()
        evidence.install()
    if not in_kernel:
        _installed[:] = [mine]
    try:
        yield
    finally:
        _note_files()
        if in_kernel:
            streams.remove()


def _surround(around: Any) -> None:
    """Let things around a body be as they are around the kernel."""
    if around is None:
        return
    folder, path, environment = around
    with contextlib.suppress(OSError):
        os.chdir(folder)
    if sys.path != path:
        sys.path[:] = path
        importlib.invalidate_caches()
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


_places = Places()
_files: dict[str, tuple[str, tuple[int, int] | None]] = {}


def _note_files() -> None:
    """Remember how the files are from which the project's modules have been imported."""
    for module in _places.modules():
        path = vars(module).get("__file__")
        if module.__name__ != "__main__" and isinstance(path, str):
            _files.setdefault(module.__name__, (path, _stat(path)))


def _forget_edited() -> None:
    """Have the project's modules imported anew if the file of one has changed since."""
    _note_files()
    if any(_stat(path) != stat for path, stat in _files.values()):
        for name in _files:
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        linecache.clearcache()
        _files.clear()


def _stat(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


@contextlib.contextmanager
def _bounded(memory: int | None) -> Any:
    """Let the body have so many bytes of memory; more is a MemoryError."""
    if memory is None:
        yield
        return
    kind = resource.RLIMIT_DATA
    before, most = resource.getrlimit(kind)
    used = memory if most == resource.RLIM_INFINITY else min(memory, most)
    resource.setrlimit(kind, (used, most))
    try:
        yield
    finally:
        resource.setrlimit(kind, (before, most))
