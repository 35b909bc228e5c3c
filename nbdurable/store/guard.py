"""What is looked at around each commit: is the database file still this process's alone?

Invariant: a commit is acknowledged only if nobody else could have written to the files
meanwhile. DuckDB's own lock is a POSIX record lock, which any ``close()`` of the file in
the same process drops (a zip of the folder, a checksum); so it is set again before each
commit, through a descriptor that stays open. DuckDB goes on writing to a write-ahead log
that somebody has deleted; that is seen by the log's count of names.

Facts about DuckDB's files (`DuckDB storage format <https://duckdb.org/docs/internals/storage>`_):
two headers of 4096 bytes follow the main one, and each checkpoint writes one of them
anew with a higher iteration; a checkpoint removes the log.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import sys
from typing import TYPE_CHECKING, Final

import tenacity

from nbdurable.errors import StoreError, StoreLockedError

from .lock import name_of

if TYPE_CHECKING:
    from .lock import StoreLock

_FLOCK: Final = "hhqqi4x"
"""``struct flock`` of 64-bit Linux: kind, whence, start, length, process id."""
_ASKED: Final = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
_HEADERS: Final = (4096, 8192)
_READER_SECONDS: Final = 10.0
"""How long a commit waits for a program that only reads the file."""

_kept: dict[tuple[int, int], int] = {}
"""Descriptors of files (device, inode) that the user holds open: closing one would drop the lock
of the user's connection."""


def log_path(place: str) -> str:
    """Return the path of DuckDB's write-ahead log of the database at `place`."""
    return f"{place}.wal"


class Guard:
    """Guards one open store's files; made after DuckDB has opened them."""

    def __init__(self, place: str, lock: StoreLock, *, alone: bool) -> None:
        self._place = place
        self._lock = lock
        self._alone = alone
        self._log_path = log_path(place)
        self._descriptor = _descriptor_of(place)
        self._can_ask = _answers(self._descriptor)
        self._log: int | None = None
        self._log_size = 0
        self._iteration = self._read_iteration()
        self._find_log()

    def before_commit(self) -> None:
        """Make sure that nobody else can write from here on.

        Raises:
            StoreLockedError: Another kernel, or another program, has opened the store.
            StoreError: Another program may have written to it since the last commit.
        """
        self._lock.confirm()
        if self._set_again() and not self._is_as_left():
            raise StoreError(
                f"the store {self._place} was written by another program while it was in use: "
                f"something in this process had closed the file, which drops DuckDB's lock. What "
                f"was acknowledged is kept, and nothing more is written: run the cell again to "
                f"resume"
            )

    def after_commit(self) -> bool:
        """Take in how the files are now; return False if the log was deleted with what is in it.

        Raises:
            StoreError: As `before_commit`: what was written may be lost.
        """
        if self._set_again():
            self._lock.confirm()
        return self._find_log()

    def is_database(self, device: object, inode: object) -> bool:
        """Tell whether this is a file, and DuckDB has it open and no other that took its name.

        Where the system doesn't tell what is open, that is taken for granted.
        """
        found = os.fstat(self._descriptor)
        if (found.st_dev, found.st_ino) != (device, inode):
            return False
        try:
            return _is_open(found, but=self._descriptor)
        except OSError:
            return True

    def release(self, *, shared: bool) -> None:
        """Let go of the files, after DuckDB has.

        Args:
            shared: The user holds the database open, too.
        """
        if self._log is not None:
            os.close(self._log)
        if shared:
            found = os.fstat(self._descriptor)
            _kept[found.st_dev, found.st_ino] = self._descriptor
        else:
            os.close(self._descriptor)

    def leave_to_parent(self) -> None:
        """Close, in a forked child, what is the parent's; its locks stay with it."""
        for descriptor in (self._descriptor, self._log):
            if descriptor is not None:
                os.close(descriptor)

    def _set_again(self) -> bool:
        """Set DuckDB's record lock again; return whether it had been dropped.

        Where the system can't be asked it is set without a question, and False returned.
        """
        if self._can_ask and _holder(self._descriptor) == os.getpid():
            return False
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EACCES, errno.EAGAIN}:
                raise
            self._wait_for_readers()
        return self._can_ask

    def _wait_for_readers(self) -> None:
        reads = self._can_ask and _ask(self._descriptor)[0] == fcntl.F_RDLCK
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((BlockingIOError, PermissionError)),
            wait=tenacity.wait_fixed(0.02),
            stop=tenacity.stop_after_delay(_READER_SECONDS if reads else 0.2),
            reraise=True,
        )
        try:
            retrying(fcntl.lockf, self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = _holder(self._descriptor) if self._can_ask else 0
            name = f"process {pid} ({name_of(pid) or 'not seen from here'})" if pid else "a program"
            raise StoreLockedError(
                f"the store {self._place} was opened by {name} while it was in use here: something "
                f"in this process had closed the file, which drops DuckDB's lock. What was "
                f"acknowledged is kept, and nothing more is written: end that program and run the "
                f"cell again to resume"
            ) from error

    def _is_as_left(self) -> bool:
        """Tell whether the files are as the last commit left them, or this process's DuckDB.

        A checkpoint ends the log. DuckDB closes it then, if the checkpoint was its own; if
        it was another process's, it has the deleted log open still.
        """
        if self._read_iteration() != self._iteration:
            return self._log is not None and not _is_open(os.fstat(self._log), but=self._log)
        return not self._alone or self._log is None or os.fstat(self._log).st_size == self._log_size

    def _find_log(self) -> bool:
        """Take in the log's size; return False if it was deleted by somebody else than DuckDB."""
        if self._log is not None:
            found = os.fstat(self._log)
            if found.st_nlink:
                self._log_size = found.st_size
                return True
            os.close(self._log)
            self._log = None
        before, self._iteration = self._iteration, self._read_iteration()
        try:
            self._log = os.open(self._log_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            self._log_size = 0
            return self._iteration != before
        found = os.fstat(self._log)
        self._log_size = found.st_size
        if found.st_mode & 0o077 and not os.fstat(self._descriptor).st_mode & 0o077:
            with contextlib.suppress(OSError):  # a disk that knows no modes
                os.fchmod(self._log, 0o600)  # as the store is
        return True

    def _read_iteration(self) -> tuple[bytes, ...]:
        return tuple(os.pread(self._descriptor, 16, header) for header in _HEADERS)


def _descriptor_of(place: str) -> int:
    found = os.stat(place)  # noqa: PTH116 - as the descriptor's
    kept = _kept.pop((found.st_dev, found.st_ino), None)
    return os.open(place, os.O_RDWR | os.O_CLOEXEC) if kept is None else kept


def _is_open(file: os.stat_result, *, but: int) -> bool:
    """Tell whether this process has a file open by another descriptor than `but`."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers
        try:
            if int(name) != but and os.path.samestat(os.fstat(int(name)), file):
                return True
        except OSError:
            continue  # closed meanwhile
    return False


def _ask(descriptor: int) -> tuple[int, int]:
    """Return the kind and the process of the record lock on a file.

    The question is put for a lock of the open file description, for which this process's
    own record locks are in the way as well (fcntl(2), "Open file description locks").
    """
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _ASKED)
    kind, _, _, _, pid = struct.unpack(_FLOCK, answer)
    return kind, pid


def _holder(descriptor: int) -> int:
    kind, pid = _ask(descriptor)
    return pid if kind != fcntl.F_UNLCK else 0


def _answers(descriptor: int) -> bool:
    """Tell whether the system can be asked who has a record lock: Linux can, since 3.15."""
    if sys.platform != "linux" or sys.maxsize < 2**32:
        return False
    try:
        _ask(descriptor)
    except OSError:
        return False
    return True
