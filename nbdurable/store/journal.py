"""Group commit: entries in one order, many to a transaction.

Invariant: entries are written in the order in which they were enqueued, each
once; `committed` is called only after the transaction that holds the entry is on
disk, and in the same order. One lock serialises the writing, so what an entry
decides in `write` (a number, a winner) has a place in one total order. Whoever
must wait anyway commits in its own thread; everybody else leaves it to the
journal's thread. What is enqueued while a transaction is being written goes
into the next one.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable  # noqa: TC003 - a module's annotation is read at run time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Literal, Protocol

import duckdb

from nbdurable.errors import DurableError, StoreError
from nbdurable.interrupts import uninterrupted

from . import rows
from .disk import as_store_error

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = tuple[object, ...]
"""A row as it is laid, by position; see `rows.Row` for those with names."""
_TABLE_OF = rows.TABLE_OF


class Batch:
    """The rows and statements of one transaction."""

    __slots__ = ("recounted", "rows", "statements")

    def __init__(self) -> None:
        self.rows: dict[str, list[Row]] = {}
        self.statements: list[tuple[str, Sequence[object], bool]] = []
        self.recounted: list[str] = []

    def add(self, row: rows.Row) -> None:
        """Add a row to its table."""
        self.lay(_TABLE_OF[type(row)], row)

    def lay(self, table: str, row: Row) -> None:
        """Add a row to `table`, in the column order of the schema, with or without signature."""
        laid = self.rows.get(table)
        if laid is None:
            self.rows[table] = [row]
        else:
            laid.append(row)

    def execute(self, statement: str, parameters: Sequence[object]) -> None:
        """Add a statement; statements come before the rows.

        One that takes rows of a run out, or changes what is signed of them, goes by
        `take_out`, or the run is counted anew: see `recount`.
        """
        self.statements.append((statement, parameters, False))

    def take_out(self, statement: str, parameters: Sequence[object]) -> None:
        """Add a DELETE that returns execution and signature of each row that it takes out."""
        self.statements.append((statement, parameters, True))

    def recount(self, run: str) -> None:
        """Have a run's rows counted anew after the statements: they change many of them."""
        self.recounted.append(run)


class Entry(Protocol):
    """Something to commit."""

    def write(self, batch: Batch) -> None:
        """Add rows, under the journal's lock, in commit order."""

    def committed(self) -> None:
        """The rows are on disk."""

    def failed(self, error: DurableError) -> None:
        """The rows are not on disk and never will be."""


# Called with "before" and "after" and the number of the commit in this process;
# `nbdurable.testing` kills the process here. None costs one comparison.
commit_hook: Callable[[Literal["before", "after"], int], None] | None = None
_commit_count = 0


class Watch(Protocol):
    """Looks around each commit whether the file is still this process's alone."""

    def before_commit(self) -> None:
        """Raise where somebody else could write to the file."""

    def after_commit(self) -> None:
        """Raise where what was written is not on disk, or not in the file of that name."""

    def refuse_fork(self) -> None:
        """Raise in a forked child of the process that opened the file."""

    def seal(self, batch: Batch, gone: list[tuple[int, bytes]]) -> None:
        """Sign the rows of a transaction, whose statements have been executed."""


class Journal:
    """Commits entries to one connection; see the module's invariant."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, watch: Watch) -> None:
        self._connection = connection
        self._watch = watch
        self._pid = os.getpid()
        # For one row alone: it is parsed once, and there is nothing in it to optimise.
        self._lean = connection.cursor()
        self._lean.execute("PRAGMA disable_optimizer")
        self._parsed: dict[str, duckdb.Statement] = {}
        self._appenders: dict[str, duckdb.Appender] = {}
        self._queue: deque[Entry] = deque()
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._closed = False
        self._broken: DurableError | None = None
        self._thread: threading.Thread | None = None

    @property
    def lock(self) -> threading.Lock:
        """Held while a transaction is written: for other users of the connection."""
        return self._lock

    @property
    def broken(self) -> bool:
        """Whether a commit failed; every later one fails too."""
        return self._broken is not None

    def enqueue(self, entry: Entry, *, kick: bool = True) -> None:
        """Put `entry` at the end of the order; without `kick` it goes along with the next.

        Raises:
            StoreLockedError: This is a forked child of the process that has the store.
        """
        if self._pid != os.getpid():
            self._watch.refuse_fork()
        self._queue.append(entry)
        if kick:
            self.kick()

    def kick(self) -> None:
        """Have what is enqueued committed soon."""
        # The token in the queue is the state: there is no moment at which it could be lost.
        if self._wake.empty():
            if self._thread is None:
                self._start()
            self._wake.put(None)

    def flush(self) -> None:
        """Commit everything that is enqueued, in the calling thread.

        Others wait for what is in there: an interrupt is held back until it is told.

        Raises:
            StoreLockedError: As `enqueue`.
        """
        self._watch.refuse_fork()
        with uninterrupted(), self._lock:
            self._drain()

    def close(self) -> None:
        """Commit what is left and stop the thread."""
        self.flush()
        self._closed = True
        self._wake.put(None)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        # An appender that outlives its connection makes DuckDB print a leak at exit.
        self._appenders.clear()
        self._parsed.clear()
        self._lean.close()

    def _start(self) -> None:
        # Not the lock of the writing: who enqueues may hold what an entry needs to be written.
        with uninterrupted(), self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="nbdurable-journal", daemon=True)
                thread.start()
                self._thread = thread

    def _work(self) -> None:
        while True:
            self._wake.get()
            self.flush()
            if self._closed:
                return

    def _drain(self) -> None:
        queue = self._queue
        while queue:
            entries = [queue.popleft() for _ in range(len(queue))]
            # The order can't be kept past a hole in it: after an error all behind fails too.
            if self._broken is None:
                self._broken = self._try(entries)
            for entry in entries:
                if self._broken is None:
                    _tell(entry)
                else:
                    entry.failed(self._broken)

    def _try(self, entries: list[Entry]) -> DurableError | None:
        """Write `entries` in one transaction; give the error if that can't be done."""
        batch = Batch()
        try:
            for entry in entries:
                entry.write(batch)
            self._commit(batch)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            return _told(error)
        return None

    def _commit(self, batch: Batch) -> None:
        global _commit_count  # noqa: PLW0603 - one count a process, for crash points
        if not batch.rows and not batch.statements:
            return
        _commit_count += 1
        if commit_hook is not None:
            commit_hook("before", _commit_count)
        self._watch.before_commit()
        try:
            self._write(batch)
        except duckdb.Error as error:
            raise as_store_error(error) from error
        self._watch.after_commit()
        if commit_hook is not None:
            commit_hook("after", _commit_count)

    def _write(self, batch: Batch) -> None:
        # One statement is its own transaction; BEGIN and COMMIT would cost 0.3 ms more.
        if len(batch.rows) == 1 and not batch.statements:
            self._watch.seal(batch, [])
            ((table, rows),) = batch.rows.items()
            if len(rows) == 1:
                self._insert_alone(table, rows[0])
            else:
                self._insert(table, rows)
            return
        self._connection.begin()
        try:
            gone: list[tuple[int, bytes]] = []
            for statement, parameters, returns in batch.statements:
                answer = self._connection.execute(statement, parameters)
                if returns:
                    gone += answer.fetchall()
            self._watch.seal(batch, gone)
            for table, rows in batch.rows.items():
                self._insert(table, rows)
            self._connection.commit()
        except BaseException:  # an interrupt, too, leaves none open
            # A COMMIT that failed has rolled back already; what it said is what is to be told.
            with contextlib.suppress(duckdb.Error):
                self._connection.rollback()
            raise

    def _insert_alone(self, table: str, row: Row) -> None:
        statement = self._parsed.get(table)
        if statement is None:
            (statement,) = self._lean.extract_statements(_insertion(table, row))
            self._parsed[table] = statement
        self._lean.execute(statement, row)

    def _insert(self, table: str, rows: list[Row]) -> None:
        if len(rows) == 1:
            self._connection.execute(_insertion(table, rows[0]), rows[0])
            return
        appender = self._appenders.get(table)
        if appender is None:
            appender = self._connection.appender(f"nbdurable.{table}")
            self._appenders[table] = appender
        try:
            appender.append_rows(rows)
            appender.flush()
        except BaseException:  # an interrupt, too, leaves no rows behind
            appender.clear()
            raise


def _insertion(table: str, row: Row) -> str:
    marks = ",".join("?" * len(row))
    return f"INSERT INTO nbdurable.{table} VALUES ({marks})"  # noqa: S608 - a table of ours


def _tell(entry: Entry) -> None:
    try:
        entry.committed()
    except Exception as error:  # noqa: BLE001 - a defect, raised where the entry is waited for
        entry.failed(_told(error))


def _told(error: Exception) -> DurableError:
    """Return the error to raise where an entry is waited for."""
    if isinstance(error, DurableError):
        return error
    told = StoreError(f"the store could not be written: {type(error).__name__}: {error}")
    told.__cause__ = error
    return told
