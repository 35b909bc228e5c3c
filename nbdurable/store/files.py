"""Files below a store's folder: opened, made and removed by their kind, never by a name alone.

Invariant: no link is followed, no pipe or device opened, and nothing removed that is not
called as ours are. One link is followed: the one that a person named as the store or as the
key, whose target nobody else can have put there.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from typing import TYPE_CHECKING

from nbdurable.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = ".nbdurable"
"""The folder beside the notebooks that holds their stores."""

_OBJECT = re.compile(r"[0-9a-f]{64}|\d+-[0-9a-f]{16}\.draft")
_IGNORED = "*\n"
_told: set[str] = set()


def follow(path: Path) -> Path:
    """Return a store's path without links in it.

    Raises:
        StoreError: It is a link that is not followed.
    """
    folder = path.parent
    if folder.name == FOLDER and (folder.is_symlink() or path.is_symlink()):
        linked = folder if folder.is_symlink() else path
        raise StoreError(
            f"{linked} is a link, and a link in a project is not followed: where the store shall "
            f"be elsewhere, name it with configure(store=...) or NBDURABLE_STORE"
        )
    if path.is_symlink():
        refuse_target(path, "store")
    return path.resolve()


def refuse_target(link: Path, what: str) -> None:
    """Refuse the target of a link that a person named, where somebody else can write it.

    Raises:
        StoreError: Somebody can.
    """
    try:
        found = link.stat()
    except OSError:
        return  # there is nothing yet, or the opening says what is wrong
    if found.st_uid not in {os.geteuid(), 0} or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StoreError(
            f"the {what} {link} is a link to {link.resolve()}, which others can write, so it is "
            f"not followed: make that yours alone (chmod 600), or name another {what}"
        )


def refuse_irregular(path: str | Path, what: str) -> None:
    """Refuse a link, a pipe, a device or a folder in the place of a file; none is fine.

    Raises:
        StoreError: It is one.
    """
    try:
        mode = os.lstat(path).st_mode
    except (OSError, ValueError):
        return  # there is none, or the opening says what is wrong
    if not stat.S_ISREG(mode):
        raise StoreError(
            f"{what} {path} is {_kind_of(mode)} and no ordinary file, so it was not opened; it "
            f"was left as it is: move it away, or name another store with configure(store=...) or "
            f"NBDURABLE_STORE"
        )


def _kind_of(mode: int) -> str:
    kinds = (
        (stat.S_ISLNK, "a link"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((word for is_kind, word in kinds if is_kind(mode)), "a device")


def refuse_linked_folder(folder: Path) -> None:
    """Refuse a folder of object files that leads elsewhere.

    Raises:
        StoreError: It does.
    """
    if folder.is_symlink():
        raise StoreError(
            f"{folder} is a link, which is not followed: nothing was written or removed there; "
            f"move it away, or name another store with configure(store=...) or NBDURABLE_STORE"
        )


def is_object(name: str) -> bool:
    """Tell whether a file is called as object files and their drafts are."""
    return _OBJECT.fullmatch(name) is not None


def keep_from_git(folder: Path) -> None:
    """Have git leave a folder alone; say so where its .gitignore says something else.

    Raises:
        OSError: It can't be written.
    """
    ignored = folder / ".gitignore"
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(ignored, os.O_RDONLY | flags)
    except FileNotFoundError:
        text: bytes | None = b""
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        text = None
    else:
        with os.fdopen(descriptor, "rb") as file:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            text = file.read(1024) if regular else None
    if text == b"":  # there is none, or a full disk had no room for it
        descriptor = os.open(ignored, os.O_WRONLY | os.O_CREAT | flags, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(_IGNORED.encode())
    elif (text is None or b"*" not in text.split()) and str(ignored) not in _told:
        _told.add(str(ignored))
        said = (
            f"{ignored} does not keep git from this folder, in which values are saved: put a line "
            f"with * into it"
        )
        if sys.stderr is not None:
            print(said, file=sys.stderr, flush=True)  # noqa: T201 - the person is to see it now


def write_anew(path: Path, data: bytes) -> None:
    """Write a file that is not there yet, for its user alone.

    Raises:
        OSError: It is there, or can't be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(data)
