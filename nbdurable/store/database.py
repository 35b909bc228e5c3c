"""One DuckDB file: opened, checked, locked against other processes, asked.

Invariant: what is not ours stays as it was. A file that is not a database, a
schema from a newer version, a store that another key signed: each is refused
before a byte of it is written.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import os
import threading
import uuid
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from nbdurable.codec.signing import sign, signature_holds
from nbdurable.errors import (
    DurableError,
    StoreCorruptError,
    StoreError,
    StoreLockedError,
    StoreVersionError,
    UntrustedCheckpointError,
)

from .connection import (
    ALONE,
    Link,
    connect,
    connect_to_look,
    connect_to_read,
    file_of,
    is_known,
    is_open_elsewhere,
    make_folder,
    read_error,
    remember,
    remember_closed,
    stamp_of,
)
from .disk import as_store_error
from .guard import log_path
from .heads import Heads
from .index import ReplayIndex, store_message
from .journal import Batch, Journal
from .keys import key_path, load_key, refuse_beside
from .listed import note
from .lock import Shared
from .named import table_name, with_tables
from .objects import Objects
from .packed import COLUMNS, checkpoint_of
from .paths import LOCK_WAIT_SECONDS, MEMORY, place_of, refuse_misread
from .schema import VERSION
from .structure import (
    catalogue_of,
    database_of,
    foreign_query,
    has_user_tables,
    lay,
    own_functions,
    refuse_foreign,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from nbdurable.records import Checkpoint

    from .guard import Guard


class Store:
    """An open store; `Store.open` makes one."""

    def __init__(self, path: str, link: Link, key: bytes) -> None:
        self.path = path
        self.key = key
        self.id = ""
        self.heads = Heads(self, key, link.connection)
        self._signature = b""
        self._version: int | None = None
        self._database = ""  # what DuckDB calls this file: others may be attached beside it
        self._own_functions = ""
        self._link = link
        self._connection = link.connection
        self._shared = link.shared
        self._pid = os.getpid()
        self._fitted = False
        self._read_only = isinstance(link.held, Shared)
        self.beginning = threading.Lock()
        self._file = (path, 0, 0)
        with contextlib.suppress(OSError):  # in memory; or removed already, which a commit tells
            self._file = file_of(path)
        self.journal = Journal(link.connection, self)
        self.objects = Objects(None if path == MEMORY else Path(f"{path}.objects"))
        _opened.add(self)

    @classmethod
    def open(cls, path: str | Path, *, wait: float = LOCK_WAIT_SECONDS) -> Store:
        """Open or create the store at `path` (or ``:memory:``).

        Args:
            path: The DuckDB file; its folder is made when it is missing.
            wait: How many seconds to wait for another process to let go of the file.

        Raises:
            StoreLockedError: Another process still holds it after `wait`.
            StoreVersionError: A newer nbdurable wrote it.
            StoreCorruptError: It is not a DuckDB database, or it is damaged.
            UntrustedCheckpointError: Another user's key signed it.
            StoreError: It can't be a file's path, its folder can't be written, or the
                key can't be read.
        """
        key = load_key()
        place = place_of(path)
        if place != MEMORY:
            refuse_misread(place)
            refuse_beside(place)
        seen = None if is_known(place) else cls._looked_at(place, wait, key)
        if place != MEMORY:
            make_folder(Path(place).parent)
        store = cls(place, connect(place, wait), key)
        with store._refused_untouched():
            # What others may have written since it was looked at is looked at again.
            again = seen is not None and (seen != stamp_of(place) or not store._is_of(seen))
            store._inspect(macros=again)
            store._believe(content=again)
            store._fit()
            store.bring_up()
            store._use_own_functions()
        remember(place)
        note(place)
        return store

    @classmethod
    def _looked_at(cls, place: str, wait: float, key: bytes) -> tuple[object, ...]:
        """Make sure that a file is this user's store, reading only; return what tells it apart.

        Nothing in it reaches another file, its write-ahead log stays, nothing is made beside it.
        """
        seen = stamp_of(place)
        store = cls(place, connect_to_look(place, wait), key)
        with store._refused_untouched():
            store._inspect(macros=True)
            store._believe(content=True)
        store._let_go()
        return seen

    def _is_of(self, seen: tuple[object, ...]) -> bool:
        """Tell whether DuckDB has the file of a stamp open: its folder may have been another."""
        guard, file = self._link.guard, seen[0]
        return guard is None or (isinstance(file, tuple) and guard.is_database(*file[:2]))

    @classmethod
    def open_to_read(cls, path: str | Path, *, wait: float = LOCK_WAIT_SECONDS) -> Store:
        """Open a store that this process may not write, for questions.

        Raises:
            StoreError: As `open`; or there is no store in the file.
        """
        place = place_of(path)
        refuse_misread(place)
        store = cls(place, connect_to_read(place, wait), load_key())
        with store._refused_untouched():
            store._inspect(macros=True)
            store._believe(content=True)
            if store._version is None:
                raise StoreError(f"{place} holds no store: it has no schema `nbdurable`")
            store._use_own_functions()
        return store

    @classmethod
    def open_foreign(
        cls, path: str | Path, *, wait: float = LOCK_WAIT_SECONDS, write: bool = False
    ) -> Store:
        """Open a store whatever key signed it, to be looked at or, to `write`, signed by `trust`.

        It is opened with external access off: nothing in it reaches another file.

        Raises:
            StoreError: As `open`; or there is no store in the file.
        """
        place = place_of(path)
        refuse_misread(place)
        if not Path(place).is_file():
            raise StoreError(f"there is no store at {place}")
        open_it = functools.partial(connect, config=ALONE) if write else connect_to_look
        store = cls(place, open_it(place, wait), load_key())
        with store._refused_untouched():
            store._inspect(macros=True)
            if store._version is None:
                raise StoreError(f"{place} holds no store: it has no schema `nbdurable`")
            store._use_own_functions()
        return store

    def close(self) -> None:
        """Commit what is enqueued and let go of the file; a forked child leaves it alone."""
        if self.is_of_parent():
            return
        try:
            self.journal.close()
        finally:
            if self.broken or self.is_gone():
                self.forsake()
            self._unfit()
            _opened.discard(self)
            self._link.close()
            self.objects.close()
            remember_closed(self.path)

    @contextlib.contextmanager
    def _refused_untouched(self) -> Iterator[None]:
        try:
            with _interruptible():
                yield
        except duckdb.Error as error:
            self._let_go()
            raise read_error(self.path, error) from error
        except DurableError:
            self._let_go()
            raise

    def _let_go(self) -> None:
        """Close the file as it is, without DuckDB folding its write-ahead log into it."""
        self.forsake()
        self.journal.close()
        _opened.discard(self)
        self._link.close(refused=True)

    def _fit(self) -> None:
        """Set what suits small commits, unless the database is the user's own as well.

        By SET, not at the opening: the user's plain ``duckdb.connect(path)`` shares the
        database only if it was opened without settings. One row committed is a quarter
        faster with one thread than with several.
        """
        if not self._shared and not has_user_tables(self._connection):
            self._fitted = True
            for setting, value in _SETTINGS.items():
                self._connection.execute(f"SET {setting} = {value}")

    def _unfit(self) -> None:
        """Leave DuckDB's own settings to a connection of the user's that stays open."""
        with contextlib.suppress(duckdb.Error):  # which has given the database up
            if self._fitted and is_open_elsewhere(self._connection):
                for setting in _SETTINGS:
                    self._connection.execute(f"RESET {setting}")

    def _inspect(self, *, macros: bool) -> None:
        """Learn the version of a schema that is as we made it; None where there is none.

        Raises:
            StoreCorruptError: It is not.
            StoreVersionError: A newer nbdurable made it.
        """
        catalogue = catalogue_of(self._connection, macros=macros)
        if not catalogue:
            return
        refuse_foreign(self.path, catalogue, only="meta" if ("table", "meta") in catalogue else "")
        # Whatever somebody has put there, no more of it is read than what is ours.
        rows = self._connection.execute(_META).fetchall()
        meta = dict(rows) if len(rows) < 4 else {}  # noqa: PLR2004 - there are three
        try:
            version = int(meta["version"])
            self.id = meta["store"].decode("ascii")
            self._signature = meta["signature"]
        except (KeyError, ValueError) as error:
            raise StoreCorruptError(
                f"{self.path}: its schema `nbdurable` lacks {error}; it was not made by nbdurable, "
                f"or it is damaged. It was left as it is: move it away or name another store"
            ) from error
        if version > VERSION:
            raise StoreVersionError(
                f"{self.path} was written by a newer nbdurable (schema {version}, this one knows "
                f"{VERSION}); it was left as it is: upgrade nbdurable, or name another store"
            )
        if version != VERSION:
            raise StoreVersionError(
                f"{self.path} was written before the first release of nbdurable (schema {version}, "
                f"this one knows {VERSION}): its outcomes can't be found again. It was left as it "
                f"is: move it away, or name another store with configure(store=...) or "
                f"NBDURABLE_STORE"
            )
        refuse_foreign(self.path, catalogue)
        self._version = version

    def _use_own_functions(self) -> None:
        if self._own_functions:
            return  # asked again, the connection would name DuckDB's own database
        self._database = database_of(self._connection)
        self._own_functions = own_functions(self._database)
        self._connection.execute(self._own_functions)

    @property
    def is_ours(self) -> bool:
        """Whether this user's key signed the store: its id, and a run of it if there are any."""
        return self._is_mine() and not self._fault()

    def _is_mine(self) -> bool:
        return signature_holds(self.key, self._signature, store_message(self.id))

    def _fault(self) -> str:
        """Say why no run is as this user's key signed it; nothing if one is, or there is none."""
        first = ""
        for (run,) in self.rows("SELECT id FROM nbdurable.run_log ORDER BY created DESC"):
            fault = self.heads.fault(run)
            if not fault:
                return ""
            first = first or fault
        return first

    def _believe(self, *, content: bool = False) -> None:
        """Refuse a store that is not this user's; with `content`, by what is in it, too."""
        if self._version is None:
            return
        if content:
            self._use_own_functions()
        if self._is_mine():
            fault = self._fault() if content else ""
            if fault:
                raise UntrustedCheckpointError(
                    f"what is saved in {self.path} is not what your key signed: {fault}. It was "
                    f"changed or damaged, or its id was copied, so nothing of it is replayed: "
                    f"restore it from a copy, or move it away, or look at it with `%durable "
                    f"trust`, or `nbdurable trust PATH`, which can make it yours as it is"
                )
        else:
            raise UntrustedCheckpointError(
                f"{self.path} was not written with your key ({key_path()}): restoring its values "
                f"would run code that somebody else chose, so nothing of it is replayed. "
                f"`%durable trust`, or `nbdurable trust PATH`, shows what is in it and makes it "
                f"yours; or move it away, or name another store with configure(store=...) or "
                f"NBDURABLE_STORE"
            )

    def seal(self, batch: Batch, gone: list[tuple[int, bytes]]) -> None:
        """Sign the rows of a transaction, and of which rows each run consists; see `heads`."""
        self.heads.seal(batch, gone)

    def bring_up(self) -> None:
        """Make the schema where there is none, and an older one this version's.

        Raises:
            StoreError: It could not be written.
        """
        try:
            with self._connection.cursor() as cursor:
                if self._version is None:
                    self.id = uuid.uuid4().hex
                    self._create_schema(cursor)
        except duckdb.Error as error:
            raise as_store_error(error) from error
        self._version = VERSION

    def _create_schema(self, connection: duckdb.DuckDBPyConnection) -> None:
        connection.begin()
        lay(connection)
        rows = {
            "version": b"%d" % VERSION,
            "store": self.id.encode("ascii"),
            "signature": sign(self.key, store_message(self.id)),
        }
        for row in rows.items():
            connection.execute("INSERT INTO nbdurable.meta VALUES (?, ?)", row)
        connection.commit()

    def commit(self, write: Callable[[Batch], None]) -> None:
        """Commit what `write` adds to a batch, after all that is enqueued, and wait for it.

        Raises:
            StoreError: It could not be written; nothing of it is in the store.
        """
        if self._read_only:
            raise StoreError(
                f"the store {self.path} and its folder can't be written: make it writable, or name "
                f"another store with configure(store=...) or NBDURABLE_STORE"
            )
        entry = _Now(write)
        self.journal.enqueue(entry, kick=False)
        self.journal.flush()
        if entry.error is not None:
            raise entry.error

    def rows(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run a query of ours on a cursor of its own and give all rows.

        Raises:
            StoreCorruptError: The file is damaged, or a table of ours is gone.
            StoreError: It can't be read.
        """
        return self.answer(query, parameters)[1]

    def streamed(
        self, query: str, parameters: Sequence[object]
    ) -> Generator[tuple[Any, ...], None, None]:
        """Yield the rows of a query of ours, a bounded number in memory at a time; as `rows`."""
        try:
            with _interruptible(), self.journal.lock, self._connection.cursor() as cursor:
                cursor.execute(self._own_functions)
                cursor.execute(query, list(parameters))
                while found := cursor.fetchmany(_ROWS_AT_A_TIME):
                    yield from found
        except duckdb.Error as error:
            raise read_error(self.path, error) from error

    def answer(
        self, query: str, parameters: Sequence[object] = ()
    ) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Return a query of ours with the names of its columns; as `rows`."""
        try:
            with _interruptible(), self.journal.lock, self._connection.cursor() as cursor:
                cursor.execute(self._own_functions)
                rows = cursor.execute(query, list(parameters)).fetchall()
                return [column[0] for column in cursor.description or ()], rows
        except duckdb.Error as error:
            raise read_error(self.path, error) from error

    def query(
        self, sql: str, tables: Mapping[str, object] | None = None
    ) -> duckdb.DuckDBPyRelation | None:
        """Run a user's SQL with the views of schema `nbdurable` in reach by their names.

        Args:
            sql: One statement or more; ``step('load')`` in it names a table.
            tables: The table of each step that it names, by that name.

        Raises:
            StoreError: DuckDB's own message.
        """
        cursor = self._connection.cursor()
        with _user_errors():
            cursor.execute("SET search_path = 'main,nbdurable'")
            if not tables:
                return cursor.sql(sql)
            for name, table in tables.items():
                cursor.register(table_name(name), table)
            return cursor.sql(with_tables(sql))

    def table(
        self, sql: str, tables: Mapping[str, object] | None = None
    ) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Return column names and rows of a query; none for a statement without result."""
        relation = self.query(sql, tables)
        if relation is None:
            return [], []
        with _user_errors():
            return list(relation.columns), relation.fetchall()

    def frame(self, sql: str, tables: Mapping[str, object] | None = None) -> Any:
        """Return a user's query as a pandas DataFrame, or a list of dicts without pandas.

        Raises:
            StoreError: DuckDB's own message.
        """
        if importlib.util.find_spec("pandas") is None:
            columns, rows = self.table(sql, tables)
            return [dict(zip(columns, row, strict=True)) for row in rows] if columns else None
        relation = self.query(sql, tables)
        if relation is None:
            return None
        with _user_errors():
            return relation.df()

    def values_of(self, step: str, limit: int) -> list[Checkpoint]:
        """Return the newest value of each step called or labelled `step`, `limit` at most.

        Of the newest run in which such a step has finished; a label comes before a
        name. Their signatures hold.

        Raises:
            UntrustedCheckpointError: One of them is not signed by this user's key.
        """
        columns = ", ".join(f"c.{name}" for name in COLUMNS)
        rows = self.rows(
            f"""
            SELECT {columns} FROM nbdurable.checkpoints c
            JOIN nbdurable.execution_log e ON e.id = c.execution
            JOIN nbdurable.run_log r ON r.id = e.run
            WHERE c.kind = 'value' AND (c.name = $1 OR c.label = $1)
            QUALIFY rank() OVER (ORDER BY r.created DESC, r.rowid DESC) = 1
            AND row_number() OVER (PARTITION BY r.id, c.label ORDER BY c.number DESC) = 1
            ORDER BY c.label = $1 DESC, c.number LIMIT {limit}
            """,  # noqa: S608 - names of ours
            [step],
        )
        found = [checkpoint_of(row) for row in rows]
        exactly = [one for one in found if one.label == step]
        for checkpoint in exactly or found:
            self.verify(checkpoint)
        return exactly or found

    def verify(self, checkpoint: Checkpoint) -> None:
        """Make sure that this user's key signed `checkpoint`, and that its run is whole.

        Raises:
            UntrustedCheckpointError: It did not, or it is not.
        """
        ReplayIndex(self.id, self.key).verify(checkpoint)
        for run, name in self.rows(
            "SELECT r.id, r.name FROM nbdurable.run_log r JOIN nbdurable.execution_log e "
            "ON e.run = r.id WHERE e.id = ?",
            [checkpoint.execution],
        ):
            if not self.heads.knows(run):
                self.heads.verify(run, name)

    def foreign_objects(self, limit: int = 1) -> list[str]:
        """Return the kinds and names of what is not ours in the file, so many at most."""
        return [one for (one,) in self.rows(foreign_query(limit), [self._database])]

    def copy_to(self, path: Path) -> None:
        """Copy all that is in the database to a new file."""
        name = _name_quoted(self._database)
        with self.journal.lock:
            self._connection.execute(f"CHECKPOINT {name}")
            self._connection.execute(f"ATTACH {_quoted(str(path))} AS nbdurable_copy")
            try:
                self._connection.execute(f"COPY FROM DATABASE {name} TO nbdurable_copy")
            finally:
                self._connection.execute("DETACH nbdurable_copy")

    def is_gone(self) -> bool:
        """Tell whether another file, or none, is now where the store's file was opened."""
        try:
            return self.path != MEMORY and file_of(self.path) != self._file
        except OSError:
            return True

    def is_of_parent(self) -> bool:
        """Tell whether this is a forked child of the process that opened the store."""
        return self._pid != os.getpid()

    def refuse_fork(self) -> None:
        """Raise in a forked child: DuckDB's threads, and the lock, are its parent's.

        Raises:
            StoreLockedError: This process was forked while its parent had the store open.
        """
        if self._pid != os.getpid():
            raise StoreLockedError(forked_sentence(self.path, self._pid))

    def before_commit(self) -> None:
        """Make sure that nobody else can write to the file; see `Guard`."""
        if self._link.guard is None:
            return
        try:
            self._link.guard.before_commit()
        except StoreError as error:
            if self.is_gone():  # and its lock file with it
                raise self._gone() from error
            raise

    def after_commit(self) -> None:
        """Make sure that what was written is on disk, in the file that has the store's name.

        Raises:
            StoreError: It is not.
        """
        if self.is_gone():
            raise self._gone()
        guard = self._link.guard
        if guard is not None and not guard.after_commit():
            self._save_without_log(guard)

    def _gone(self) -> StoreError:
        return StoreError(
            f"the store {self.path} was removed, moved or replaced while it was in use: what "
            f"was written since is not saved; put it back and run the cell again to resume, or "
            f"run the cell again without it to start anew"
        )

    def _save_without_log(self, guard: Guard) -> None:
        """Put into the file what went to a write-ahead log that somebody has deleted.

        DuckDB has all of it in memory still. A transaction that changed nothing leaves no
        log either: then a checkpoint has nothing to do.
        """
        try:
            self._connection.execute("CHECKPOINT " + _name_quoted(self._database))
        except duckdb.Error as error:
            raise self._log_lost() from error
        guard.after_commit()

    def _log_lost(self) -> StoreError:
        return StoreError(
            f"{log_path(self.path)} was deleted while the store was in use, and with it what was "
            f"saved since the last checkpoint: run the cell again, and what is lost runs again"
        )

    @property
    def is_shared(self) -> bool:
        """Whether the user holds the same database open in this process."""
        return self._shared

    def forsake(self) -> None:
        """Leave the file and its write-ahead log alone at the closing.

        Where writing has failed, folding one into the other once more could spoil the
        file: DuckDB writes over blocks that the file's header still names. And where the
        file is gone, the log of that name may be another's.
        """
        if not self._shared:
            with self.journal.lock, contextlib.suppress(duckdb.Error):
                self._connection.execute("PRAGMA disable_checkpoint_on_shutdown")

    def leave_to_parent(self) -> None:
        """Close, in a forked child, the descriptors that the parent's locks need."""
        if self._link.guard is not None:
            self._link.guard.leave_to_parent()

    @property
    def broken(self) -> bool:
        """Whether a commit failed: nothing more can be written on this connection."""
        return self.journal.broken


_SETTINGS = {
    "threads": "1",
    "autoinstall_known_extensions": "false",  # nothing downloads at run time
    "autoload_known_extensions": "false",
}
_META = (
    "SELECT key, value FROM nbdurable.meta WHERE key IN ('version', 'store', 'signature') LIMIT 4"
)
_ROWS_AT_A_TIME = 2_000  # they stay in the processor's cache

_opened: weakref.WeakSet[Store] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """Keep a forked child from ever closing what its parent has open.

    DuckDB would write to the parent's files, or wait for threads that a fork does not
    copy; so nothing of it is ever freed in the child, not even as the interpreter ends.
    """
    for store in tuple(_opened):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(store))
        store.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)


def forked_sentence(place: str, parent: int) -> str:
    """Return what a forked child is told of a store that its parent has open."""
    return (
        f"{place} is held by process {parent}, from which this process was forked while it was "
        f"open: a forked child can't use it. Start the child by the spawn or forkserver method "
        f"(multiprocessing.get_context('spawn')), or use another store in it"
    )


class _Now:
    """An entry whose writer waits for it."""

    def __init__(self, write: Callable[[Batch], None]) -> None:
        self.write = write
        self.error: DurableError | None = None

    def committed(self) -> None:
        """Nothing to do: the writer waits."""

    def failed(self, error: DurableError) -> None:
        self.error = error


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt where DuckDB turned it into an error of its own."""
    try:
        yield
    except RuntimeError as error:
        if str(error) != "Query interrupted":
            raise
        raise KeyboardInterrupt from None


@contextlib.contextmanager
def _user_errors() -> Iterator[None]:
    """Raise as a StoreError, in DuckDB's own words, what is wrong with a user's query."""
    try:
        with _interruptible():
            yield
    except duckdb.Error as error:
        raise StoreError(str(error)) from error


def _name_quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
