"""A store's files given another name, for a notebook that was renamed or copied.

Invariant: the database comes last, so wherever it stands, the object files that it
names stand beside it; it takes its new name whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from pathlib import Path

from . import lock
from .disk import file_error
from .files import is_object, refuse_irregular, refuse_linked_folder

OBJECTS = ".objects"
"""What the folder of a store's object files is called, behind the store's own name."""


def hand_over(store: Path, to: Path, *, keep: bool) -> None:
    """Rename the files of a closed store within its folder; `keep` leaves the old ones.

    Raises:
        StoreLockedError: A process has the store open.
        StoreError: They can't be moved or copied.
    """
    held = lock.take(str(store))  # nobody opens it meanwhile
    try:
        _hand_over(store, to, keep=keep)
    except BaseException:  # an interrupt, too, lets go of the store
        held.give_back()
        raise
    held.give_back(moved=not keep)


def _hand_over(store: Path, to: Path, *, keep: bool) -> None:
    objects, taken = store.with_name(store.name + OBJECTS), to.with_name(to.name + OBJECTS)
    refuse_linked_folder(objects)
    refuse_linked_folder(taken)
    draft = to.with_name(f"{to.name}.{secrets.token_hex(4)}.draft")
    try:
        if objects.is_dir() and keep:
            # Their content never changes: a second name of the same file is as good as a copy.
            _copy_objects(objects, taken)
        elif objects.is_dir():
            objects.rename(taken)
        if keep:
            refuse_irregular(store, "the store")
            shutil.copy2(store, draft, follow_symlinks=False)
            draft.rename(to)
        else:
            store.rename(to)
    except OSError as error:
        raise file_error(error, to, f"{store} can't be handed over to {to}: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def _copy_objects(objects: Path, taken: Path) -> None:
    """Copy object files, and nothing else that somebody may have put among them."""
    taken.mkdir(mode=0o700, exist_ok=True)
    for one in objects.iterdir():
        if is_object(one.name) and stat.S_ISREG(one.lstat().st_mode):
            _link_or_copy(str(one), str(taken / one.name))


def _link_or_copy(source: str, to: str) -> None:
    try:
        os.link(source, to)
    except OSError:
        if not Path(to).exists():
            shutil.copy2(source, to)
