"""A file opened: owned by this process, with a word for whatever is in the way.

Invariant: a file that is refused stays as it was, and one that can't be opened is
told of by what the person can do about it. A file that is this user's own is opened
without settings, so that the user's plain ``duckdb.connect(path)`` shares it.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import duckdb
import tenacity

from nbdurable.errors import (
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreVersionError,
)

from . import lock
from .disk import as_store_error, file_error
from .files import FOLDER, keep_from_git, refuse_irregular
from .guard import Guard, log_path
from .paths import MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable

Config = dict[str, str | bool | int | float | list[str]]

ALONE: Final[Config] = {
    "threads": 1,
    "autoinstall_known_extensions": False,  # nothing downloads at run time
    "autoload_known_extensions": False,
    "enable_external_access": False,
    "memory_limit": "1GB",
    "temp_directory": "",  # nothing is put beside it
}
"""How a file is opened that is not yet known to be ours: nothing in it reaches another file.
DuckDB can't switch that on again in a running instance."""

SAY_SECONDS: Final = 0.5
"""How long a store that somebody else holds is waited for without a word."""

_OLDEST_DUCKDB: Final = 2

known: dict[tuple[str, int, int], tuple[object, ...] | None] = {}
"""The files (path, device, inode) that this process has found to be this user's stores, each
with its times and sizes as it was closed here; None while it is open."""


class Link(NamedTuple):
    """A connection to an open store, and what keeps others away from the file.

    ``shared``: the user holds the same database open in this process. ``held`` and
    ``guard``: the lock file, and what is looked at around each commit; none in memory.
    """

    connection: duckdb.DuckDBPyConnection
    shared: bool = False
    held: lock.StoreLock | lock.Shared | None = None
    guard: Guard | None = None

    def close(self, *, refused: bool = False) -> None:
        """Close the connection, then let go of the file; `refused` leaves nothing beside it."""
        others = self.guard is not None and is_open_elsewhere(self.connection)
        self.connection.close()
        if self.guard is not None:
            self.guard.release(shared=others)
        if self.held is not None:
            self.held.give_back(refused=refused)


def make_folder(folder: Path) -> None:
    """Make a store's folder, which git is told to leave alone.

    Raises:
        StoreError: It can't be made or written.
    """
    try:
        ours = folder.name == FOLDER
        folder.mkdir(mode=0o700 if ours else 0o777, parents=True, exist_ok=True)
        if ours:
            keep_from_git(folder)
    except OSError as error:
        raise file_error(
            error,
            folder,
            f"the store's folder {folder} can't be made or written: "
            f"{error.strerror or error}; make it writable, or name another store with "
            f"configure(store=...) or NBDURABLE_STORE",
        ) from error


def connect(path: str, wait: float, config: Config | None = None) -> Link:
    """Open a file as its owner, waiting so many seconds for another process to let go of it.

    After half a second a line on stderr says who holds it. What was begun here and
    could not be finished is removed.

    Raises:
        StoreLockedError: Another process still holds it.
        StoreError: The file can't be opened; says why, and what to do.
    """
    _refuse_old_duckdb()
    if path == MEMORY:
        return Link(duckdb.connect(path))
    return _patiently(wait, _connect_once, path, config)


def connect_to_read(path: str, wait: float) -> Link:
    """Open a file that this process may not write; as `connect`."""
    _refuse_old_duckdb()
    return _patiently(wait, _connect_to_read, path)


def connect_to_look(path: str, wait: float) -> Link:
    """Open a file that is not known to be ours, to be read, and leave it as it is; as `connect`.

    One that this process has open already is shared.
    """
    _refuse_old_duckdb()
    if lock.is_held(path):
        return _patiently(wait, _connect_once, path, ALONE)
    return _patiently(wait, _connect_to_look, path)


def _patiently(wait: float, open_once: Callable[..., Link], *args: object) -> Link:
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(lock.HeldError),
        wait=tenacity.wait_fixed(0.05),
        stop=tenacity.stop_after_delay(wait),
        before_sleep=_Announcement(wait),
        reraise=True,
    )
    try:
        return retrying(open_once, *args)
    except lock.HeldError as error:
        raise StoreLockedError(str(error)) from None


class _Announcement:
    """Says once, on stderr, who is waited for."""

    def __init__(self, wait: float) -> None:
        self._wait = wait
        self._said = False

    def __call__(self, state: tenacity.RetryCallState) -> None:
        waited = state.seconds_since_start or 0.0
        worth_it = self._wait > 2 * SAY_SECONDS  # else the error itself comes as soon
        if self._said or waited < SAY_SECONDS or not worth_it:
            return
        if state.outcome is None or sys.stderr is None:
            return
        self._said = True
        holder = str(state.outcome.exception()).partition(";")[0]
        print(f"{holder}; waiting up to {self._wait:g} s for it", file=sys.stderr, flush=True)  # noqa: T201 - the person waits now


def _connect_once(path: str, config: Config | None) -> Link:
    _refuse_irregular(path)
    begun_here = not Path(path).exists()
    held = lock.take(path)
    try:
        connection, shared = _connect(path, config)
        if begun_here:
            Path(path).chmod(0o600)
        try:
            guard = Guard(path, held, alone=not shared)
        except OSError as error:
            connection.close()
            raise _missing(path, error) from error
    except BaseException as error:
        if begun_here and isinstance(error, StoreFullError):
            Path(path).unlink(missing_ok=True)  # it is no store that could be refused later
        held.give_back(refused=True)
        raise
    return Link(connection, shared, held, guard)


def _connect(path: str, config: Config | None) -> tuple[duckdb.DuckDBPyConnection, bool]:
    """Return a connection, and whether the user has the database open in this process, too."""
    if config is not None:
        try:
            return _opened(path, config), False
        except duckdb.ConnectionException as error:
            if "different configuration" not in str(error):
                raise _open_error(path, error) from error
    try:
        connection = _opened(path, {})
    except duckdb.ConnectionException as error:
        raise _open_error(path, error) from error
    return connection, is_open_elsewhere(connection)


def _opened(path: str, config: Config) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(path, config=config)
    except duckdb.ConnectionException:
        raise
    except duckdb.Error as error:
        raise _open_error(path, error) from error


def _refuse_irregular(path: str) -> None:
    refuse_irregular(path, "the store")
    refuse_irregular(log_path(path), "the store's write-ahead log")


def _connect_to_read(path: str, config: Config | None = None) -> Link:
    _refuse_irregular(path)
    held = lock.share(path)
    try:
        connection = duckdb.connect(path, read_only=True, config=config or {})
    except duckdb.Error as error:
        held.give_back()
        raise _open_error(path, error) from error
    return Link(connection, held=held)


def _connect_to_look(path: str) -> Link:
    try:
        return _connect_to_read(path, ALONE)
    except StoreError as error:
        shared = isinstance(error.__cause__, duckdb.ConnectionException)
        if shared and "different configuration" in str(error.__cause__):
            return _connect_once(path, ALONE)  # the user has it open in this process
        raise


def is_open_elsewhere(connection: duckdb.DuckDBPyConnection) -> bool:
    """Tell whether this process has other connections to a connection's database."""
    # By its full name: a macro of the file could take the bare one.
    asked = 'SELECT * FROM "system"."main".duckdb_connection_count()'
    try:
        ((count,),) = connection.execute(asked).fetchall()
    except duckdb.Error:
        return True  # it has given the database up: what is left open is the safe answer
    return bool(count > 1)


def file_of(place: str) -> tuple[str, int, int]:
    """Return what tells the file at a path from others: the path, its device, its inode.

    Raises:
        OSError: There is none, or it can't be asked.
    """
    found = os.stat(place)  # noqa: PTH116 - asked at every commit, and three times as fast
    return place, found.st_dev, found.st_ino


def stamp_of(place: str) -> tuple[object, ...]:
    """Return what tells whether a file, or its write-ahead log, has been written since."""
    found: list[object] = []
    for path in (place, log_path(place)):
        try:
            one = os.stat(path)  # noqa: PTH116 - as above
        except OSError:
            found.append(None)
        else:
            found.append((one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns))
    return tuple(found)


def is_known(place: str) -> bool:
    """Tell whether nobody else can have written what is in a store."""
    try:
        if place == MEMORY:
            return True
        file = file_of(place)
        return file in known and known[file] in {None, stamp_of(place)}
    except OSError:
        return True  # there is none yet; or the opening says what is wrong


def forget(place: str) -> None:
    """Take out that a file is this user's store."""
    with contextlib.suppress(OSError):
        known.pop(file_of(place), None)


def remember(place: str) -> None:
    """Take in that a file is this user's store, and open."""
    with contextlib.suppress(OSError):  # removed as soon as it was opened, or in memory
        known[file_of(place)] = None


def remember_closed(place: str) -> None:
    """Take in how a store of this user's was left: whoever writes to it changes that."""
    with contextlib.suppress(OSError):
        if (file := file_of(place)) in known:
            known[file] = stamp_of(place)


def _open_error(path: str, error: duckdb.Error) -> StoreError:
    text = _first_line(error)
    if "Conflicting lock" in text:
        holder = re.search(r"PID (\d+)", text)
        who = lock.describe({"pid": int(holder[1])}) if holder else "another process"
        return lock.HeldError(lock.held_sentence(path, who))
    if "Could not set lock" in text:
        return lock.no_locks(path, text)
    if "different configuration" in text or "already attached" in text:
        return StoreError(
            f"{path} is open in this process already, in a way that can't be shared ({text}): "
            f"close that connection, or open it with duckdb.connect(path) and no settings"
        )
    if "Could not write" in text or "No space left" in text:
        return as_store_error(error)
    if "with version number" in text:
        return StoreVersionError(
            f"{path} was written by a DuckDB that this one ({duckdb.__version__}) can't read "
            f"({text.removeprefix('IO Error: ')}); it was left as it is: install the DuckDB that "
            f"wrote it, or a newer one (pip install -U duckdb), or name another store with "
            f"configure(store=...) or NBDURABLE_STORE"
        )
    if Path(path).is_file() and not _is_database(path):
        return StoreCorruptError(
            f"{path} is not a DuckDB database; it was left as it is: move it away, or name another "
            f"store with configure(store=...) or NBDURABLE_STORE"
        )
    if "replaying WAL" in text and "does not match" in text:
        log = log_path(path)
        return StoreCorruptError(
            f"{path} and its write-ahead log {log} are not of one time: one of the two was "
            f"restored, or replaced, without the other; both were left as they are: restore both "
            f"from one copy, or move {log} away, and what is only in it runs again"
        )
    if _is_damage(text):
        return read_error(path, error)
    return StoreError(
        f"the store {path} can't be opened: {text}; make it writable, or name another store with "
        f"configure(store=...) or NBDURABLE_STORE"
    )


def _missing(path: str, error: OSError) -> StoreError:
    return file_error(
        error,
        Path(path),
        f"the store {path} was removed while it was opened ({error.strerror or error}): run the "
        f"cell again",
    )


def _refuse_old_duckdb() -> None:
    if int(duckdb.__version__.partition(".")[0]) < _OLDEST_DUCKDB:
        raise StoreVersionError(
            f"nbdurable needs DuckDB {_OLDEST_DUCKDB} or newer, and DuckDB {duckdb.__version__} is "
            f"installed: pip install -U duckdb, then restart the kernel"
        )


def read_error(path: str, error: duckdb.Error) -> StoreError:
    """Return the error that tells a person why an open store can't be read."""
    text = _first_line(error)
    if isinstance(error, duckdb.CatalogException | duckdb.BinderException) or _is_damage(text):
        return StoreCorruptError(
            f"{path} is damaged: {text}; it was left as it is: restore it from a copy, or move it "
            f"away, or name another store with configure(store=...) or NBDURABLE_STORE"
        )
    return StoreError(f"the store {path} can't be read: {text}")


def _is_damage(text: str) -> bool:
    return any(
        sign in text for sign in ("Corrupt", "Could not read enough bytes", "Failed to deserialize")
    )


def _is_database(path: str) -> bool:
    """Tell whether the file begins as DuckDB's files do: a checksum, then four letters."""
    try:
        with Path(path).open("rb") as file:
            return file.read(12)[8:] == b"DUCK"
    except OSError:
        return True  # then DuckDB's own message says what is wrong


def _first_line(error: duckdb.Error) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
