"""The only place where the parts are joined: stores are opened, runs made and ended.

Invariant: a store is open only while a run uses it, and shortly after; one run
has at most one execution at a time in this process (the file's lock holds off
the others). This is also the plain-Python door: `workflow` and `configure`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import inspect
import os
import re
import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from . import output, scope, streams
from . import store as stores
from .codec import decode
from .errors import StoreError, UsageError
from .executors import Clock, SystemClock
from .fingerprint import Fingerprinter
from .interrupts import guarded, uninterrupted
from .label import label_of
from .records import RunStatus, RunSummary
from .run import Run, RunSettings
from .step import is_async
from .store import MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextvars import Token
    from types import TracebackType

    from .control import Control
    from .records import Event
    from .scope import Scope
    from .step import Running
    from .store import Garbage, Identity, Store, Survey

P = ParamSpec("P")
R = TypeVar("R")

LINGER_SECONDS = 1.0
"""How long a store stays open after its last use: the next cell need not open it again."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What `configure` sets."""

    store: str | Path | None = None
    strict: bool = False
    limit: int | None = None
    verify: bool = False
    progress: bool | None = None


@dataclass(slots=True, eq=False)
class _Open:
    store: Store
    users: int = 0
    cancel_close: Callable[[], None] | None = None


@dataclass(slots=True)
class _State:
    """What this process holds; one instance, `_state`."""

    settings: Settings = field(default_factory=Settings)
    notebook: Path | None = None
    clock: Clock = field(default_factory=SystemClock)
    closing_clock: Clock = field(default_factory=SystemClock)
    lock: threading.RLock = field(default_factory=threading.RLock)
    opens: dict[str, _Open] = field(default_factory=dict)
    executing: dict[tuple[str, str], str] = field(default_factory=dict)
    leftovers: dict[str, dict[Identity, Running]] = field(default_factory=dict)


_state = _State()


def configure(**settings: Any) -> None:
    """Set what later runs use.

    Args:
        settings: ``store``, the DuckDB file (``":memory:"`` keeps nothing);
            ``strict``, refuse what can't be compared or saved; ``limit``, threads a
            run; ``verify``, read each large value and compare it with its checksum
            before it is replayed; ``progress``, True, show how each run stands
            wherever stderr goes, False, nowhere (by default, in notebooks and on
            terminals; NBDURABLE_PROGRESS says 1 or 0). None sets a default back.

    Raises:
        UsageError: A setting is unknown or can't have this value.
    """
    known = ("store", "strict", "limit", "verify", "progress")
    for name, value in settings.items():
        if name not in known:
            raise UsageError(
                f"configure({name}=...): unknown setting; there are {', '.join(known)}"
            )
        if name == "limit" and value is not None:
            _check_limit(value)
        if name == "store":
            _check_store(value)
        if name in {"strict", "verify"}:
            if value not in {None, True, False}:
                raise UsageError(f"configure({name}={value!r}): give True or False")
            settings[name] = bool(value)
        if name == "progress":
            _check_progress(value)
    _state.settings = replace(_state.settings, **settings)


def settings() -> Settings:
    """Give what `configure` has set."""
    return _state.settings


def notebook() -> Path | None:
    """Give the notebook that this kernel runs; None where it is not known."""
    return _state.notebook


def set_notebook(path: Path | None) -> None:
    """Name the notebook that this kernel runs, or None where it is not known."""
    _state.notebook = path


def default_store() -> str:
    """Give the store: `configure`'s, NBDURABLE_STORE, the notebook's, or the folder's."""
    chosen = _state.settings.store or os.environ.get("NBDURABLE_STORE")
    if chosen:
        return str(chosen)
    if _state.notebook is not None:
        return store_of(_state.notebook)
    try:
        return str(Path.cwd() / ".nbdurable" / "default.duckdb")
    except FileNotFoundError as error:
        raise StoreError(
            "the working folder was removed or moved, so there is no place for a store in it: "
            "change to another with os.chdir(...), or name a store with configure(store=...) or "
            "NBDURABLE_STORE"
        ) from error


def store_of(notebook: Path) -> str:
    """Give the store of a notebook, beside it."""
    name = f"_{notebook.stem}" if stores.taken_by_schema(notebook.stem) else notebook.stem
    return str(notebook.parent / ".nbdurable" / f"{name}.duckdb")


def earlier_names() -> list[str]:
    """Give the notebooks, by their names, whose checkpoints may be this one's.

    Those beside it that are gone, so that it may have been renamed, and those that it is
    a copy of, as its own name tells. None if it has a store, or is told to use another.
    """
    store = Path(default_store())
    notebook = _state.notebook
    if notebook is None or store.exists() or store.parent != notebook.parent / ".nbdurable":
        return []
    found = []
    for other in sorted(store.parent.glob("*.duckdb")):
        original = notebook.with_name(f"{other.stem}.ipynb")
        copied = re.fullmatch(re.escape(other.stem) + _COPY, notebook.stem) is not None
        if other.stem != "default" and (copied or not original.exists()):
            found.append(other.stem)
    return found


_COPY = r"[-_ ]?(?:[Cc]opy)?[-_ ]?\(?\d*\)?"
"""What front ends and people put behind the name of a notebook that they copy."""


def adopt(name: str) -> str:
    """Take the checkpoints of the notebook called `name`: a copy, or if it is gone its own.

    Raises:
        UsageError: There are none, or this notebook has checkpoints itself.
        StoreError: They are in use, or can't be copied.
    """
    notebook = _state.notebook
    if notebook is None:
        raise UsageError(f"adopt {name}: no notebook is known here whose checkpoints they would be")
    stem = name.removesuffix(".ipynb")
    if not stem or Path(stem).name != stem:
        raise UsageError(
            f"adopt {name!r}: give the name of a notebook that was in {notebook.parent}, no path"
        )
    mine, theirs = Path(default_store()), Path(store_of(notebook.with_name(f"{stem}.ipynb")))
    if mine.exists():
        raise UsageError(
            f"adopt {name}: {notebook.name} has checkpoints of its own in {mine}: move that file "
            f"away first, if you don't need it"
        )
    if not theirs.is_file():
        others = ", ".join(earlier_names())
        there = f"; there are those of {others}" if others else ""
        raise UsageError(f"adopt {name}: there are no checkpoints at {theirs}{there}")
    gone = not notebook.with_name(f"{stem}.ipynb").exists()
    with _state.lock:
        close_stores()
        stores.Store.open(theirs).close()  # what is in its write-ahead log goes into the file
        stores.hand_over(theirs, mine, keep=not gone)
    taken = "they were its own" if gone else f"{stem}.ipynb keeps its own"
    return f"{notebook.name} has the checkpoints of {stem} now; {taken}"


def default_progress() -> bool | None:
    """Give whether runs show how they stand: `configure`'s word, or NBDURABLE_PROGRESS's.

    Raises:
        UsageError: NBDURABLE_PROGRESS is neither 1 nor 0.
    """
    if _state.settings.progress is not None:
        return _state.settings.progress
    said = os.environ.get("NBDURABLE_PROGRESS", "").strip().lower()
    if said and said not in _WORDS:
        raise UsageError(f"NBDURABLE_PROGRESS={said}: set it to 1 (show), 0 (don't), or not at all")
    return _WORDS[said] if said else None


_WORDS = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}


def default_limit() -> int:
    """Give how many threads a run may use unless it is told."""
    return _state.settings.limit or min(32, (os.cpu_count() or 1) + 4)


def workflow(
    name: str,
    *,
    store: str | Path | None = None,
    id: object = None,  # noqa: A002 - the contract's name
    new: bool = False,
    max_age: float | None = None,
    strict: bool | None = None,
    limit: int | None = None,
    tee: bool = False,
    progress: bool | None = None,
    observers: Sequence[Callable[[Event], None]] = (),
) -> Workflow:
    """Give a durable run without a notebook: a context manager, and a decorator.

    Args:
        name: What the run is found by next time.
        store: The DuckDB file; see `configure`.
        id: Tells runs of one name apart.
        new: A finished run is not replayed: a new one begins; an unfinished one resumes.
        max_age: As `new`, when the last checkpoint is older than so many seconds.
        strict: Refuse what can't be compared or saved, instead of saying so.
        limit: How many sync steps run at once.
        tee: Show every step's output while it runs, in no order, instead of in program order.
        progress: Show how the run stands, on stderr, wherever that goes; False, don't. By
            default a terminal shows it once the run lasts; see `configure`.
        observers: Called with each event, in any thread; must be quick and not raise.

    Raises:
        UsageError: The name is empty, or an option can't have this value.
    """
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise UsageError(f"workflow({name!r}): give a printable name, the same one every time")
    run_name = name if id is None else f"{name}[{id}]"
    if not run_name.isprintable():
        raise UsageError(f"workflow({name!r}, id={id!r}): give an id that prints in one line")
    _check_store(store)
    _check_progress(progress)
    if limit is not None:
        _check_limit(limit)
    if max_age is not None and not _is_seconds(max_age):
        raise UsageError(f"workflow max_age={max_age!r}: give a number of seconds, 0 or more")
    return Workflow(
        run_name=run_name,
        by_arguments=id is None,
        store=None if store is None else str(store),
        new=new,
        max_age=max_age,
        strict=strict,
        limit=limit,
        tee=tee,
        progress=progress,
        observers=tuple(observers),
    )


class Workflow:
    """One execution of a named run: ``with``, ``async with``, or a decorator.

    After the end `notes` holds lines for the person at the screen, and `steps` how
    many steps and timers the code asked for. `control` is there from the beginning of
    an execution on.
    """

    def __init__(
        self,
        *,
        run_name: str,
        by_arguments: bool,
        store: str | None,
        new: bool,
        max_age: float | None,
        strict: bool | None,
        limit: int | None,
        tee: bool,
        progress: bool | None,
        observers: tuple[Callable[[Event], None], ...],
    ) -> None:
        self.run_name = run_name
        self.notes: tuple[str, ...] = ()
        self.warnings: tuple[str, ...] = ()
        self.steps = 0
        self.control: Control | None = None
        self._by_arguments = by_arguments
        self._store = store
        self._new = new
        self._max_age = max_age
        self._strict = strict
        self._limit = limit
        self._tee = tee
        self._progress = progress
        self._observers = observers
        self._run: Run | None = None
        self._place = ""
        self._undo = contextlib.ExitStack()

    # --- with -----------------------------------------------------------------------

    def __enter__(self) -> Run:
        return self._begin(asynchronous=False)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        run = self._leave()
        try:
            run.finish(error)
        finally:
            self._finished(run)

    async def __aenter__(self) -> Run:
        return self._begin(asynchronous=True)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        run = self._leave()
        try:
            await run.finish_async(error)
        finally:
            self._finished(run)

    def _begin(self, *, asynchronous: bool) -> Run:
        outer = scope.current.get()
        if outer is not None:
            raise UsageError(
                f"{self.run_name} would begin inside {outer.run.settings.name}: a run can't "
                f"contain another; a step that starts steps is a sub-workflow"
            )
        if self._run is not None:
            raise UsageError(
                f"{self.run_name} is being executed by this very workflow(...) already; make a "
                f"second one with another name or id="
            )
        self._place = stores.place_of(self._store or default_store())
        asked = default_progress() if self._progress is None else self._progress
        # An interrupt can come anywhere: what has been done by then is undone.
        with _executing(self._place, self.run_name), contextlib.ExitStack() as undo:
            undo.enter_context(guarded())
            found = _acquire(self._place)
            undo.callback(_release, self._place, found)
            opened = found.store.begin_execution(
                self.run_name, now=_state.clock.time(), new=self._new, max_age=self._max_age
            )
            streams.install()
            undo.callback(streams.remove)
            undo.callback(output.leave_screen, output.enter_screen())
            view = _view_of(self.run_name, asked=asked)
            observers = self._observers
            if view is not None:
                observers = (*observers, view)
                undo.callback(view.finish)
            strict = _state.settings.strict if self._strict is None else self._strict
            run = Run(
                found.store,
                opened,
                RunSettings(
                    self.run_name,
                    strict,
                    self._limit or default_limit(),
                    asynchronous,
                    self._tee,
                    _state.settings.verify,
                ),
                clock=_state.clock,
                observers=observers,
                leftovers=_state.leftovers.setdefault(opened.run, {}),
            )
            run.begin()
            undo.callback(_leave_scope, scope.current.set(run.scope))
            self.control = run.control
            if view is not None:
                view.show()
            with uninterrupted():
                self._run, self._undo = run, undo.pop_all()
        return run

    def _leave(self) -> Run:
        assert self._run is not None
        return self._run

    def _finished(self, run: Run) -> None:
        self.steps = run.step_count()
        self.warnings = tuple(run.notes)
        self.notes = run.said()
        self._run = None
        _state.executing.pop((self._place, self.run_name), None)
        self._undo.close()

    # --- decorator ------------------------------------------------------------------

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Make `function` durable: each set of arguments is a run of its own, or `id` names it.

        Raises:
            UsageError: `function` is a generator function, or can't be called.
            FingerprintError: In a call: an argument can't be compared with another
                process's.
        """
        if not callable(function):
            raise UsageError(
                f"workflow({self.run_name!r}) decorates a function; a {type(function).__name__} "
                f"can't be called"
            )
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise UsageError(
                f"workflow({self.run_name!r}): {function.__name__} is a generator function, whose "
                f"body would run after the run had ended: return a list instead of yielding"
            )
        if is_async(function):

            @functools.wraps(function)
            async def durable_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                async with self._for(function, args, kwargs):
                    return await function(*args, **kwargs)  # type: ignore[misc] # it is async

            return durable_async  # type: ignore[return-value] # R is its coroutine

        @functools.wraps(function)
        def durable(*args: P.args, **kwargs: P.kwargs) -> R:
            with self._for(function, args, kwargs):
                return function(*args, **kwargs)

        return durable

    def _for(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Workflow:
        name = self.run_name
        signature = inspect.signature(function)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if self._by_arguments and (bound.args or bound.kwargs):
            digest = Fingerprinter(strict=True).arguments(function, args, kwargs).digest
            short = hashlib.blake2b(digest, digest_size=8).hexdigest()
            label = label_of(name, bound.args, bound.kwargs, tuple(signature.parameters))
            name = f"{label} {short}"
        return Workflow(
            run_name=name,
            by_arguments=False,
            store=self._store,
            new=self._new,
            max_age=self._max_age,
            strict=self._strict,
            limit=self._limit,
            tee=self._tee,
            progress=self._progress,
            observers=self._observers,
        )


@contextlib.contextmanager
def replaced_clock(clock: Clock) -> Iterator[None]:
    """Let runs that begin inside the block go by `clock`."""
    before, _state.clock = _state.clock, clock
    try:
        yield
    finally:
        _state.clock = before


# --- questions about a store -----------------------------------------------------------


def runs(
    store: str | Path | None = None, *, wait: float = stores.LOCK_WAIT_SECONDS
) -> list[RunSummary]:
    """Give a line about each run of the store, newest first; none if there is no store.

    Args:
        store: The DuckDB file; by default the one that a durable cell would use.
        wait: How many seconds to wait for another process to let go of it.
    """
    with reading(store, wait) as opened:
        return opened.summaries() if opened is not None else []


def unfinished(
    store: str | Path | None = None, *, wait: float = stores.LOCK_WAIT_SECONDS
) -> list[RunSummary]:
    """Give the newest run of each name where that run has not finished; as `runs`."""
    newest: dict[str, RunSummary] = {}
    for summary in runs(store, wait=wait):
        newest.setdefault(summary.name, summary)
    return [
        summary
        for summary in newest.values()
        if summary.status is not RunStatus.FINISHED and summary.executions
    ]


def status(store: str | Path | None = None) -> list[dict[str, object]]:
    """Give, for the newest run of each name, how far it is."""
    return _rows(
        store,
        "SELECT workflow, status, saved, executions, created FROM nbdurable.runs "
        "QUALIFY row_number() OVER (PARTITION BY workflow ORDER BY created DESC) = 1 "
        "ORDER BY created DESC",
    )


def steps(name: str | None = None, store: str | Path | None = None) -> list[dict[str, object]]:
    """Give the steps of the newest run called `name`, or of the newest run."""
    return _rows(
        store,
        "SELECT number, label AS step, status, round(seconds, 3) AS seconds, attempts, started "
        "FROM nbdurable.steps WHERE run = " + _NEWEST + " ORDER BY number NULLS LAST, started",
        [name],
    )


def why(name: str | None = None, store: str | Path | None = None) -> list[dict[str, object]]:
    """Give, for each step of the newest run called `name`, why it ran when it last did."""
    return _rows(
        store,
        "SELECT label AS step, status, why, execution, started "
        "FROM nbdurable.steps WHERE run = " + _NEWEST + " ORDER BY number NULLS LAST, started",
        [name],
    )


def restart(name: str, store: str | Path | None = None) -> str:
    """Make the next execution of `name` start a new run; the old ones stay as history.

    Raises:
        UsageError: There is no run of that name.
    """
    with reading(store) as opened:
        if opened is None or not opened.restart(name, _state.clock.time()):
            known = sorted({one.name for one in opened.summaries()}) if opened else []
            there = f"there are {', '.join(known)}" if known else "there are none yet"
            raise UsageError(f"restart {name}: no run has that name; {there}")
    return f"{name}: its next run starts from nothing; the old one stays as history"


@dataclass(frozen=True, slots=True)
class Collected:
    """What a store no longer needs: outcomes, run by run, and object files; sizes in bytes.

    ``freed`` is by how much the database's own file shrank.
    """

    found: tuple[Garbage, ...]
    files: int
    files_size: int
    removed: bool
    freed: int = 0


def collect(
    store: str | Path | None = None, *, older_than: float | None = None, remove: bool = False
) -> Collected:
    """Find what a store no longer needs, and take it out if told so.

    That is, runs that a newer one of their name has replaced, and outcomes of finished
    runs that were superseded: by other code, or by other values received.

    Args:
        store: The DuckDB file; by default the one that a durable cell would use.
        older_than: Leave alone what was saved in the last so many seconds.
        remove: Take it out and make the file small; else it is only looked at.

    Raises:
        UsageError: A durable cell of this process is using the store.
        StoreError: There is none, or it can't be written; then nothing is gone.
    """
    place = stores.place_of(store or default_store())
    with _state.lock, reading(store) as opened:
        if opened is None:
            raise StoreError(f"there is no store at {place} yet")
        running = [name for at, name in _state.executing if at == place]
        if running:
            raise UsageError(f"gc: {running[0]} is running: wait until it has ended, or stop it")
        if any(_state.leftovers.get(one.id) for one in opened.summaries()):
            raise UsageError(
                "gc: steps of an interrupted cell still run and may be saved yet: run that cell "
                "again, which adopts them, or restart the kernel"
            )
        before = None if older_than is None else _state.clock.time() - older_than
        found = tuple(stores.garbage(opened, before=before))
        files = stores.spare_files(opened, found)
        size = sum(file.stat().st_size for file in files)
        if not remove:
            return Collected(found, len(files), size, removed=False)
        # What no row names goes first: taking rows out needs some room itself.
        stores.remove_files(stores.spare_files(opened))
        if found:
            stores.remove(opened, found)
        stores.remove_files(files)
        try:
            freed = stores.compact(opened)
        finally:
            # The file may be another one now, under the same name, or DuckDB has given this
            # connection up: it is let go at once.
            if place != MEMORY:
                del _state.opens[place]
        return Collected(found, len(files), size, removed=True, freed=freed)


def query(sql: str, store: str | Path | None = None) -> Any:
    """Run SQL over the store, its views in reach by their names, and ``step('load')``.

    ``FROM step('load')`` is the table that a step called, or labelled, `load` gave: its
    newest outcome in the newest run that has one.

    Returns:
        A pandas DataFrame where pandas is installed, else a list of dicts; None
        for a statement without a result.

    Raises:
        StoreError: DuckDB's own message.
        UsageError: No finished step has that name, or several have; or its value is no
            table.
        CodecError: The step's value is not signed by this user's key, or can't be
            restored.
    """
    with reading(store) as opened:
        if opened is None:
            raise StoreError(f"there is no store at {store or default_store()} yet")
        return opened.frame(sql, _tables(opened, sql))


def answer(sql: str, store: str | Path | None = None) -> list[dict[str, object]]:
    """Give what `query` gives, as rows of plain values; none for a statement without result."""
    with reading(store) as opened:
        if opened is None:
            raise StoreError(f"there is no store at {store or default_store()} yet")
        columns, rows = opened.table(sql, _tables(opened, sql))
        return [dict(zip(columns, row, strict=True)) for row in rows]


def survey(store: str | Path | None = None) -> Survey:
    """Tell what is in a store, whatever key signed it, by its columns alone.

    Raises:
        StoreError: There is none, or it can't be read.
        UsageError: A durable cell is using it.
    """
    return stores.survey(_unused(store))


def trust(store: str | Path | None = None) -> Survey:
    """Sign everything in a store with this user's key; its values are replayed from then on.

    Returns:
        What was signed.

    Raises:
        StoreCorruptError: It contradicts itself; nothing was signed.
        StoreError: There is none, or it can't be read or written.
        UsageError: A durable cell is using it.
    """
    return stores.trust_store(_unused(store))


def _unused(store: str | Path | None) -> str:
    place = stores.place_of(store or default_store())
    if (found := _state.opens.get(place)) is not None:
        _close_unused(place, found)
    if place in _state.opens:
        raise UsageError(f"{place} is in use by a durable cell: wait until it has ended")
    return place


def _tables(opened: Store, sql: str) -> dict[str, object]:
    """Give the values of the steps that a query names."""
    return {name: _value_of(opened, name) for name in {one.name for one in stores.mentions(sql)}}


def _value_of(opened: Store, name: str) -> object:
    found = opened.values_of(name, limit=_LABELS_LISTED + 1)
    if not found:
        raise UsageError(f"step({name!r}): no step of that name or label has finished")
    if len(found) > 1:
        labels = ", ".join(f"step({one.label!r})" for one in found[:_LABELS_LISTED])
        more = ", and more" if len(found) > _LABELS_LISTED else ""
        raise UsageError(f"step({name!r}): there are several; say which: {labels}{more}")
    value = decode(found[0].payload, found[0].pieces, opened.objects)
    if not _is_table(value):
        raise UsageError(
            f"step({name!r}): its value is a {type(value).__name__}, and SQL asks tables: a "
            f"DataFrame of pandas or polars, or an Arrow table"
        )
    return value


def _is_table(value: object) -> bool:
    """Tell whether DuckDB can read a value as a table, by what its library calls it."""
    kinds = {(kind.__module__.split(".")[0], kind.__name__) for kind in type(value).__mro__}
    return bool(kinds & _TABLES)


_LABELS_LISTED = 8
_TABLES = {
    ("pandas", "DataFrame"),
    ("polars", "DataFrame"),
    ("polars", "LazyFrame"),
    ("pyarrow", "Table"),
    ("pyarrow", "RecordBatch"),
}


_NEWEST = (
    "(SELECT run FROM nbdurable.runs WHERE workflow = $1 OR $1 IS NULL "
    "ORDER BY created DESC LIMIT 1)"
)


def _rows(
    store: str | Path | None, sql: str, parameters: Sequence[object] = ()
) -> list[dict[str, object]]:
    with reading(store) as opened:
        if opened is None:
            return []
        columns, rows = opened.answer(sql, parameters)
        return [dict(zip(columns, row, strict=True)) for row in rows]


# --- stores, opened and let go -------------------------------------------------------------


def _view_of(name: str, *, asked: bool | None) -> View | None:
    """Give what shows a run outside notebooks; None where nobody looks."""
    if asked is False or not (asked or (sys.stderr is not None and sys.stderr.isatty())):
        return None
    from .terminal import view_for  # noqa: PLC0415 - who is not on a terminal doesn't pay for it

    return view_for(name, asked=asked, clock=_state.clock.time)


class View(Protocol):
    """Shows one execution: an observer that is told when it begins and ends."""

    def __call__(self, event: Event) -> None:
        """Take an event."""

    def show(self) -> None:
        """The execution has begun."""

    def finish(self) -> None:
        """The execution has ended."""


def _leave_scope(token: Token[Scope | None]) -> None:
    with contextlib.suppress(ValueError):
        # An async generator's cleanup may run in another context; the scope is dead anyhow.
        scope.current.reset(token)


@contextlib.contextmanager
def _executing(place: str, name: str) -> Iterator[None]:
    """Mark a run as being executed; the mark stays unless beginning it fails."""
    with _state.lock:
        holder = _state.executing.get((place, name))
        if holder is not None:
            raise UsageError(
                f"{name} is being executed already, by {holder}: a run has one execution at a "
                f"time; wait for it, or give this one another name or id="
            )
        _state.executing[place, name] = threading.current_thread().name
    try:
        yield
    except BaseException:
        _state.executing.pop((place, name), None)
        raise


def _acquire(place: str, wait: float = stores.LOCK_WAIT_SECONDS) -> _Open:
    with _state.lock:
        _give_up(place)
        found = _state.opens.get(place)
        if found is None:
            found = _state.opens[place] = _Open(stores.Store.open(place, wait=wait))
        if found.cancel_close is not None:
            found.cancel_close()
            found.cancel_close = None
        found.users += 1
        return found


def _give_up(place: str) -> None:
    """Let go of a store on which a commit failed, or whose file was taken away.

    Whoever still uses it closes it.
    """
    with _state.lock:
        found = _state.opens.get(place)
        if found is not None and (found.store.broken or found.store.is_gone()):
            del _state.opens[place]
            if not found.users:
                found.store.close()


def _release(place: str, found: _Open) -> None:
    with _state.lock:
        found.users -= 1
        if found.users:
            return
        if _state.opens.get(place) is not found:
            found.store.close()
        elif place != MEMORY:
            found.cancel_close = _state.closing_clock.call_later(
                LINGER_SECONDS, functools.partial(_close_unused, place, found)
            )


def _close_unused(place: str, found: _Open) -> None:
    with _state.lock:
        if _state.opens.get(place) is found and not found.users:
            del _state.opens[place]
            found.store.close()


def close_stores() -> None:
    """Close every store that no run uses, at once."""
    for place, found in list(_state.opens.items()):
        _close_unused(place, found)


# A connection that is still open when the interpreter ends makes DuckDB print what it leaks.
atexit.register(close_stores)


@contextlib.contextmanager
def reading(
    store: str | Path | None = None, wait: float = stores.LOCK_WAIT_SECONDS
) -> Iterator[Store | None]:
    """Give the store for a question, or None where there is no file; never makes one."""
    place = stores.place_of(store or default_store())
    _give_up(place)
    if place not in _state.opens and (place == MEMORY or not Path(place).is_file()):
        yield None
        return
    found = _acquire(place, wait)
    try:
        yield found.store
    finally:
        _release(place, found)


def _check_limit(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"limit={value!r}: give a whole number, 1 or more")


def _check_progress(value: Any) -> None:
    if value is not None and not isinstance(value, bool):
        raise UsageError(f"progress={value!r}: give True, False, or None")


def _check_store(value: Any) -> None:
    if value is not None and not isinstance(value, str | Path):
        raise UsageError(f"store={value!r}: give the path of a DuckDB file")


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
