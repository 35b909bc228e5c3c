"""The status file beside a store: how far its owner's runs are, for other processes to see.

Invariant: whoever owns the store writes it, whole or not at all, for its user alone; it says
nothing that the store does not know better, and is read only while that owner lives. Who
reads it treats it as a stranger's: no link is followed, and no more is read than fits.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

from .files import write_anew
from .lock import Record, living_owner

MOST_STATUS_BYTES: Final = 1 << 20
"""A status file is no longer."""


def status_path(place: str) -> Path:
    """Return the path of the status file of the store at `place`."""
    return Path(f"{place}.status")


def owner_of(place: str) -> tuple[int, int]:
    """Return who owns the store: the process and its generation, as the status file says it."""
    owner = living_owner(place) or {}
    return owner.get("pid", 0), owner.get("generation", 0)


def write_status(place: str, data: bytes) -> bool:
    """Put `data` in the place of what the status file held; False where that can't be done.

    The folder may be full or read-only by now: the run goes on without.
    """
    path = status_path(place)
    draft = path.with_name(f"{path.name}.new")
    try:
        draft.unlink(missing_ok=True)
        write_anew(draft, data)
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        return False
    return True


def remove_status(place: str) -> None:
    """Take the status file away, if there is one."""
    with contextlib.suppress(OSError):
        status_path(place).unlink(missing_ok=True)


def read_status(place: str) -> tuple[Record, bytes] | None:
    """Return who owns the store at this moment, and what its status file holds.

    None where nobody is known to own it, or where the file can't be read. The caller is to
    compare the two: the file may be of an owner that has died.
    """
    owner = living_owner(place)
    if owner is None:
        return None
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(status_path(place), flags)
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_STATUS_BYTES:
            return None
        return owner, os.pread(descriptor, MOST_STATUS_BYTES, 0)
    except OSError:
        return None
    finally:
        os.close(descriptor)
