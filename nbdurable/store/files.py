"""Files below a store's folder: opened, made and removed by their kind, never by a name alone.

Invariant: no link is followed, no pipe or device opened, and nothing removed that is not
called as ours are. One link is followed: the one that a person named as the store or as the
key, whose target nobody else can have put there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
from typing import TYPE_CHECKING

from nbdurable.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
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


@contextlib.contextmanager
def below(folder: Path) -> Iterator[int]:
    """Give a descriptor of a folder, by whose path, which is whole, no link leads.

    What is made and removed by it is in that folder, whatever takes the folder's name meanwhile.

    Raises:
        StoreError: A link is in the path.
        OSError: There is no such folder.
    """
    flags = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
    found = os.open(folder.anchor, flags)
    try:
        for part in folder.parts[1:]:
            before, found = found, os.open(part, flags, dir_fd=found)
            os.close(before)
        yield found
    except NotADirectoryError as error:
        raise StoreError(
            f"a link, or a file, has come into the path of {folder} while it was in use: nothing "
            f"was written or removed there; put the folder back and run the cell again"
        ) from error
    finally:
        os.close(found)


def remove(path: Path) -> None:
    """Remove a file from the folder that its path names, and from no other.

    Raises:
        StoreError: As `below`.
        OSError: It can't be removed.
    """
    with below(path.parent) as folder, contextlib.suppress(FileNotFoundError):
        os.unlink(path.name, dir_fd=folder)


def is_object(name: str) -> bool:
    """Tell whether a file is called as object files and their drafts are."""
    return _OBJECT.fullmatch(name) is not None


def keep_from_git(folder: Path) -> None:
    """Have git leave a folder alone; say so where its .gitignore says something else.

    Raises:
        OSError: It can't be written.
    """
    ignored = folder / ".gitignore"
    text = _written(ignored, _IGNORED.encode())
    if (text is None or b"*" not in text.split()) and str(ignored) not in _told:
        _told.add(str(ignored))
        said = (
            f"{ignored} does not keep git from this folder, in which values are saved: put a line "
            f"with * into it"
        )
        if sys.stderr is not None:
            print(said, file=sys.stderr, flush=True)  # noqa: T201 - the person is to see it now


def _written(path: Path, data: bytes) -> bytes | None:
    """Return what is in a small file, which is written where it is empty or not there yet.

    None for what is no ordinary file of one name: a link, of either kind, leads elsewhere.
    """
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o644)
    except FileExistsError:
        try:
            descriptor = os.open(path, os.O_RDONLY | flags)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            return None
    else:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        return data
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return None
        text = file.read(1024)
        if text or found.st_nlink > 1:
            return text or None
    # A full disk had no room for it. It is taken away, for who made it may have put another there.
    remove(path.absolute())
    write_anew(path, data, 0o644)
    return data


def write_anew(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file that is not there yet, for its user alone unless a mode says otherwise.

    Raises:
        OSError: It is there, or can't be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, mode), "wb") as file:
        file.write(data)
