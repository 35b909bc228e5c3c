"""The lock file beside a store: which process owns the store, and whether that one lives.

Invariant: a store has one owner. The file ``<store>.lock`` names the owner by process
id, host and start, and counts owners by a generation; it is never deleted while it is
in use. Two facts decide together: the record lock of the system, which ends with its
process but is dropped by any ``close()`` of the file in that process (a zip, a
checksum), and the record in the file, which stays. An owner is dead only if the system
holds no lock for it *and* its process is gone, so a dropped lock lets nobody in, and a
forked child that lives on keeps nobody out. Of a process on another host or in another
process namespace the system's lock alone is known.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import json
import os
import platform
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psutil
import tenacity

from nbdurable.errors import StoreError, StoreLockedError

from .disk import file_error

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_SIZE: Final = 512
"""Bytes of a record, padded: a new one takes the place of the old one in one write."""
_BUSY: Final = frozenset({errno.EACCES, errno.EAGAIN})
_NO_LOCKS: Final = frozenset(
    {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
)
_START_TOLERANCE: Final = 2.0
"""Seconds by which two readings of one process's start may differ: the clock can be set."""
_TRANSIENT_SECONDS: Final = 2.0
"""How long another process may look at the lock file before it lets go of it."""

Record = dict[str, Any]


class HeldError(StoreLockedError):
    """Another process has the store at this moment: trying again may help."""


def lock_path(place: str) -> Path:
    """Return the path of the lock file of the store at `place`."""
    return Path(f"{place}.lock")


class StoreLock:
    """This process's ownership of one store; `take` makes one, and `give_back` ends it.

    Stores that this process opens twice share one: a second descriptor of the lock file
    would drop the lock of the first when it is closed.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self.users = 1
        self._made_here = not lock_path(place).exists()
        try:
            self._descriptor, self._written = _take_file(place)
        except HeldError:
            raise
        except StoreError:
            if self._made_here:
                lock_path(place).unlink(missing_ok=True)
            raise

    def confirm(self) -> None:
        """Make sure, before a commit, that the store is still this process's own.

        A lock that was dropped is set again; a lock file that was deleted is made again.

        Raises:
            StoreLockedError: Another process has taken the store.
        """
        if os.fstat(self._descriptor).st_nlink == 0:
            self._make_again()
        _briefly(_lock, self.place, self._descriptor, fcntl.LOCK_EX)
        if os.pread(self._descriptor, _SIZE, 0) != self._written:
            raise StoreLockedError(
                f"{self.place} was taken over by {describe(_read(self._descriptor))} while it was "
                f"in use here: what was acknowledged is kept, and nothing more is written; shut "
                f"the other kernel down and run this cell again to resume"
            )

    def _make_again(self) -> None:
        """Own the lock file that now has the name, after the old one was deleted."""
        with _holding:  # the store may be open twice in this process
            if os.fstat(self._descriptor).st_nlink:
                return
            deleted = self._descriptor
            self._descriptor, self._written = _briefly(_take_file, self.place)
            os.close(deleted)

    def give_back(self, *, refused: bool = False, moved: bool = False) -> None:
        """End one use of the store; the last one frees it.

        Args:
            refused: The file was left as it was: leave no lock file that was made for it.
            moved: There is no store of this name any more.
        """
        with _holding:
            self.users -= 1
            if self.users:
                return
            del _held[self.place]
            if moved or (refused and self._made_here):
                # Whoever waits for the file sees that it has lost its name, and makes another.
                lock_path(self.place).unlink(missing_ok=True)
            elif os.pread(self._descriptor, _SIZE, 0) == self._written:
                free = _written({"generation": _generation(_read(self._descriptor))})
                # A disk that takes no byte any more leaves it: the end of this process frees it.
                with contextlib.suppress(OSError):
                    os.pwrite(self._descriptor, free, 0)
            os.close(self._descriptor)

    @property
    def record(self) -> Record:
        """What the lock file says of this process."""
        record: Record = json.loads(self._written)
        return record

    def leave_to_parent(self) -> None:
        """Close the descriptor in a forked child, and leave the file alone."""
        os.close(self._descriptor)


class Shared:
    """A reader's share of a store that this process may not write; see `share`."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def give_back(self, *, refused: bool = False) -> None:  # noqa: ARG002 - as an owner's
        """Let go of the lock file."""
        if self._descriptor is not None:
            os.close(self._descriptor)


_held: dict[str, StoreLock] = {}
_holding = threading.RLock()


def _leave_to_parent() -> None:
    """Close, in a forked child, what its parent owns: POSIX locks stay with the parent."""
    global _holding  # noqa: PLW0603 - another thread may have held it, which is not here
    _holding = threading.RLock()
    for lock in _held.values():
        lock.leave_to_parent()
    _held.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


def take(place: str) -> StoreLock:
    """Make this process the owner of the store at `place`, or count one more use of it.

    Raises:
        HeldError: Another process owns it.
        StoreFullError: The disk has no room for the lock file.
        StoreError: The lock file can't be written, or the disk keeps no locks.
    """
    with _holding:
        lock = _held.get(place)
        if lock is not None:
            lock.users += 1
        else:
            lock = _held[place] = StoreLock(place)
        return lock


def is_held(place: str) -> bool:
    """Tell whether this process owns the store at `place`."""
    return place in _held


def share(place: str) -> Shared:
    """Keep owners away from a store while this process, which may not write, reads it.

    Raises:
        HeldError: A process owns the store.
    """
    try:
        descriptor = os.open(lock_path(place), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return Shared(None)  # there is none, or it may not be read: DuckDB's own lock is left
    try:
        _lock(place, descriptor, fcntl.LOCK_SH)
        _refuse_living_owner(place, _read(descriptor))
    except BaseException:  # an interrupt, too, leaves none open
        os.close(descriptor)
        raise
    return Shared(descriptor)


def _take_file(place: str) -> tuple[int, bytes]:
    """Own the lock file; return its descriptor, locked, and the record that is in it now."""
    while True:
        descriptor = _open(place)
        try:
            _lock(place, descriptor, fcntl.LOCK_EX)
            # Between opening and locking somebody may have deleted or replaced it.
            if not _has_its_name(place, descriptor):
                os.close(descriptor)
                continue
            before = _read(descriptor)
            _refuse_living_owner(place, before)
            written = _written(_own_record(_generation(before) + 1))
            _write(place, descriptor, written)
        except BaseException:  # likewise
            os.close(descriptor)
            raise
        return descriptor, written


def _open(place: str) -> int:
    path = lock_path(place)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, _mode_of(place))
    except OSError as error:
        raise _unwritable(place, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StoreError(
            f"the store's lock file {path} is no ordinary file; it was left as it is: move it "
            f"away, or name another store with configure(store=...) or NBDURABLE_STORE"
        )
    return descriptor


def _mode_of(place: str) -> int:
    """Return who may use a lock file that is made: who may use the store."""
    try:
        return 0o600 if not os.stat(place).st_mode & 0o077 else 0o666  # noqa: PTH116 - it may be anything
    except OSError:
        return 0o600


def _unwritable(place: str, error: OSError) -> StoreError:
    path = lock_path(place)
    return file_error(
        error,
        path,
        f"the store {place} can't be opened, for its lock file {path} can't be made or written: "
        f"{error.strerror or error}; make it writable, or name another store with "
        f"configure(store=...) or NBDURABLE_STORE",
    )


def _lock(place: str, descriptor: int, kind: int) -> None:
    try:
        fcntl.lockf(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            raise _held_error(place, _read(descriptor)) from None
        if error.errno in _NO_LOCKS:
            raise no_locks(place, error.strerror or str(error)) from error
        raise _unwritable(place, error) from error


def _briefly(act: Callable[..., T], *args: Any) -> T:
    """Call `act` again while somebody only looks whether the owner lives."""
    try:
        return act(*args)
    except HeldError:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(HeldError),
            wait=tenacity.wait_fixed(0.01),
            stop=tenacity.stop_after_delay(_TRANSIENT_SECONDS),
            reraise=True,
        )
        return retrying(act, *args)


def _has_its_name(place: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(lock_path(place).lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _write(place: str, descriptor: int, written: bytes) -> None:
    try:
        os.pwrite(descriptor, written, 0)
    except OSError as error:
        raise _unwritable(place, error) from error


# --- what stands in the file -----------------------------------------------------------


def _own_record(generation: int) -> Record:
    return {
        "generation": generation,
        "pid": os.getpid(),
        "host": platform.node(),
        "namespace": _namespace(),
        "start": _start_of(os.getpid()),
        "since": time.time(),
    }


def _written(record: Record) -> bytes:
    text = json.dumps(record).encode("ascii")
    return text[: _SIZE - 1].ljust(_SIZE - 1) + b"\n"


def _read(descriptor: int) -> Record:
    """Return the record; an empty one where the file holds none that can be read."""
    try:
        record = json.loads(os.pread(descriptor, _SIZE, 0))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _generation(record: Record) -> int:
    generation = record.get("generation")
    return generation if isinstance(generation, int) else 0


def _namespace() -> str:
    """Return which processes this one can see; nothing where the system has one set only."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _start_of(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return 0.0


# --- whether an owner lives ---------------------------------------------------------------


def living_owner(place: str) -> Record | None:
    """Return the record of the process that owns a store and is known to live; else None.

    Takes no lock, and waits for none.
    """
    with _holding:
        if (mine := _held.get(place)) is not None:
            return mine.record
        # Not while this process owns it: to close another descriptor would drop its lock.
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(lock_path(place), flags)
        except OSError:
            return None
        try:
            record = _read(descriptor)
        finally:
            os.close(descriptor)
    return record if _lives(record) else None


def _refuse_living_owner(place: str, record: Record) -> None:
    if record.get("pid") != os.getpid() and _lives(record):
        raise _held_error(place, record)


def _lives(record: Record) -> bool:
    """Tell whether the process that a record names is known to live."""
    pid, start = record.get("pid"), record.get("start")
    if not isinstance(pid, int) or not isinstance(start, int | float) or not _is_visible(record):
        return False
    try:
        process = psutil.Process(pid)
        return (
            process.status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
            and abs(process.create_time() - start) < _START_TOLERANCE
        )
    except psutil.AccessDenied:
        return True
    except (psutil.Error, OverflowError, ValueError):
        return False


def _is_visible(record: Record) -> bool:
    return record.get("host") == platform.node() and record.get("namespace") == _namespace()


def describe(record: Record) -> str:
    """Return how a message calls the process that a record names."""
    pid, since = record.get("pid"), record.get("since")
    if not isinstance(pid, int):
        return "another process"
    where = name_of(pid) if "host" not in record or _is_visible(record) else f"on {record['host']}"
    held = f", which has had it since {_moment(since)}" if isinstance(since, int | float) else ""
    return f"process {pid} ({where or 'not seen from here'}){held}"


def name_of(pid: int) -> str:
    """Return the name of the program that a process runs; nothing if it can't be asked."""
    try:
        return psutil.Process(pid).name()
    except (psutil.Error, OverflowError, ValueError):
        return ""


def _moment(time_of: float) -> str:
    with contextlib.suppress(OverflowError, OSError, ValueError):
        return f"{dt.datetime.fromtimestamp(time_of, tz=dt.UTC).astimezone():%Y-%m-%d %H:%M:%S}"
    return "an unknown time"


def no_locks(place: str, reason: str) -> StoreError:
    """Return what a person is told of a disk on which nothing can be locked."""
    return StoreError(
        f"{place} is on a disk that keeps no locks, as some network folders are ({reason}): two "
        f"kernels could spoil it; name a store on a disk of this machine with "
        f"configure(store=...) or NBDURABLE_STORE"
    )


def _held_error(place: str, record: Record) -> HeldError:
    return HeldError(held_sentence(place, describe(record)))


def held_sentence(place: str, holder: str) -> str:
    """Return what a person is told about a store that somebody else holds."""
    return (
        f"{place} is held by {holder}; one process at a time can use a store: shut that kernel "
        f"down, or wait until its durable cell has ended, then try again"
    )
