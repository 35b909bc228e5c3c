"""A file opened: locked against other processes, with a word for whatever is in the way.

Invariant: a file that is refused stays as it was, and one that can't be opened is
told of by what the person can do about it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
from pathlib import Path
from typing import NamedTuple

import duckdb
import psutil
import tenacity

from nbdurable.errors import StoreCorruptError, StoreError, StoreFullError, StoreLockedError

from . import MEMORY
from .disk import as_store_error, file_error

Config = dict[str, str | bool | int | float | list[str]]

OURS: Config = {
    "threads": 1,  # one row committed is faster with one thread than with several
    "autoinstall_known_extensions": False,  # nothing downloads at run time
    "autoload_known_extensions": False,
}
ALONE: Config = {**OURS, "enable_external_access": False}
"""How a file is opened that is not yet known to be ours: nothing in it reaches another file.
DuckDB can't switch that on again in a running instance."""

known: set[tuple[str, int, int]] = set()
"""The files (path, device, inode) that this process has found to be this user's stores."""


class Link(NamedTuple):
    """A connection, and whether it is to an instance that the user holds open, too."""

    connection: duckdb.DuckDBPyConnection
    shared: bool


def make_folder(folder: Path) -> None:
    """Make a store's folder, which git is told to leave alone.

    Raises:
        StoreError: It can't be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if folder.name == ".nbdurable":
            _keep_from_git(folder / ".gitignore")
    except OSError as error:
        raise file_error(
            error,
            folder,
            f"the store's folder {folder} can't be made or written: "
            f"{error.strerror or error}; make it writable, or name another store with "
            f"configure(store=...) or NBDURABLE_STORE",
        ) from error


def _keep_from_git(ignored: Path) -> None:
    if not ignored.exists() or not ignored.stat().st_size:  # one that a full disk had no room for
        ignored.write_text("*\n", encoding="ascii")


def _is_lock(error: BaseException) -> bool:
    return isinstance(error, duckdb.IOException) and "Conflicting lock" in str(error)


def connect_or_remove(path: str, wait: float, config: Config) -> Link:
    """Connect; a file that is begun here, and then the disk is full, is no store to be refused."""
    begun_here = path != MEMORY and not Path(path).exists()
    try:
        return connect(path, wait, config)
    except StoreFullError:
        if begun_here:
            Path(path).unlink(missing_ok=True)
        raise


def connect(path: str, wait: float, config: Config) -> Link:
    """Open a file, waiting so many seconds for another process to let go of it.

    Raises:
        StoreLockedError: It did not.
        StoreError: The file can't be opened; says why, and what to do.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_lock),
        wait=tenacity.wait_fixed(0.05),
        stop=tenacity.stop_after_delay(wait),
        reraise=True,
    )
    try:
        return retrying(_connect_once, path, config)
    except duckdb.Error as error:
        raise _open_error(path, error) from error


def _connect_once(path: str, config: Config) -> Link:
    if "enable_external_access" in config and "?" in path:
        # DuckDB allows itself the write-ahead log, but not where a path is like a URL's.
        config = {**config, "allowed_paths": [path.replace("?", ".wal?", 1)]}
    try:
        return Link(duckdb.connect(path, config=config), shared=False)
    except duckdb.ConnectionException as error:
        if "different configuration" not in str(error):
            raise
        # The user holds this database open in the same process: share their instance.
        return Link(duckdb.connect(path), shared=True)


def file_of(place: str) -> tuple[str, int, int]:
    """Give what tells the file at a path from others: the path, its device, its inode.

    Raises:
        OSError: There is none, or it can't be asked.
    """
    found = os.stat(place)  # noqa: PTH116 - asked at every commit, and three times as fast
    return place, found.st_dev, found.st_ino


def is_known(place: str) -> bool:
    """Tell whether nobody else can have written what is in a store."""
    try:
        return place == MEMORY or file_of(place) in known
    except OSError:
        return True  # there is none yet; or the opening says what is wrong


def remember(place: str) -> None:
    """Take in that a file is this user's store."""
    with contextlib.suppress(OSError):  # removed as soon as it was opened, or in memory
        known.add(file_of(place))


def _open_error(path: str, error: duckdb.Error) -> StoreError:
    text = _first_line(error)
    if _is_lock(error):
        holder = re.search(r"PID (\d+)", text)
        return StoreLockedError(
            f"{path} is held by {_describe(int(holder[1])) if holder else 'another process'}; "
            f"one process at a time can use a store: shut that kernel down, or wait until its "
            f"durable cell has ended, then run this cell again"
        )
    if "Could not set lock" in text:
        return StoreError(
            f"{path} is on a disk that keeps no locks, as some network folders are ({text}): two "
            f"kernels could spoil it; name a store on a disk of this machine with "
            f"configure(store=...) or NBDURABLE_STORE"
        )
    if "different configuration" in text or "already attached" in text:
        return StoreError(
            f"{path} is open in this process already, in a way that can't be shared ({text}): "
            f"close that connection, or open it with duckdb.connect(path) and no settings"
        )
    if "Could not write" in text or "No space left" in text:
        return as_store_error(error)
    if Path(path).is_file() and not _is_database(path):
        return StoreCorruptError(
            f"{path} is not a DuckDB database; it was left as it is: move it away, or name another "
            f"store with configure(store=...) or NBDURABLE_STORE"
        )
    if _is_damage(text):
        return read_error(path, error)
    return StoreError(
        f"the store {path} can't be opened: {text}; make it writable, or name another store with "
        f"configure(store=...) or NBDURABLE_STORE"
    )


def read_error(path: str, error: duckdb.Error) -> StoreError:
    """Give the error that tells a person why an open store can't be read."""
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


def _describe(pid: int) -> str:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        since = dt.datetime.fromtimestamp(process.create_time(), tz=dt.UTC).astimezone()
        return f"process {pid} ({process.name()}, running since {since:%Y-%m-%d %H:%M:%S})"
    return f"process {pid}"
