"""The per-user signing key: made once, kept outside every project.

Invariant: the key never lies beside a store, so a store that came from elsewhere
can't bring the key that would make it trusted.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from nbdurable.errors import StoreError

from .disk import file_error
from .files import FOLDER
from .paths import user_folder

_KEY_BYTES = 32


def key_path() -> Path:
    """Return where this user's key lies; `NBDURABLE_KEY_FILE` moves it.

    Raises:
        StoreError: No home folder is known.
    """
    chosen = os.environ.get("NBDURABLE_KEY_FILE")
    if not chosen:
        return user_folder("the signing key") / "signing.key"
    try:
        return Path(chosen).expanduser().absolute()
    except RuntimeError as error:
        raise StoreError(
            f"NBDURABLE_KEY_FILE={chosen} can't be the signing key: {error}; give the whole path "
            f"of a file outside the project"
        ) from error


def load_key() -> bytes:
    """Return this user's key of 32 bytes, made at the first use with mode 0600.

    Raises:
        StoreError: The key can't be read or written, or is not of 32 bytes.
    """
    path = key_path()
    try:
        try:
            key = _read(path)
        except FileNotFoundError:
            key = _create_key(path)
    except OSError as error:
        raise file_error(
            error,
            path,
            f"the signing key {path} can't be used: {error.strerror or error}; make its folder "
            f"writable or point NBDURABLE_KEY_FILE at another file outside the project",
        ) from error
    if len(key) != _KEY_BYTES:
        size = path.stat().st_size
        raise StoreError(
            f"the signing key {path} has {size} bytes instead of {_KEY_BYTES}; restore it, or "
            f"remove it and lose what it signed"
        )
    return key


def _read(path: Path) -> bytes:
    """Return what is in the key's file, which nobody else can have written.

    A link that leads to it is the user's own: in Kubernetes a secret is one.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise StoreError(
                f"the signing key {path} is no ordinary file: point NBDURABLE_KEY_FILE at a file "
                f"of {_KEY_BYTES} bytes outside the project"
            )
        if found.st_uid not in {os.geteuid(), 0} or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise StoreError(
                f"the signing key {path} can be written by others, who could make their stores "
                f"pass for yours: chmod 600 it if it is yours, or point NBDURABLE_KEY_FILE at "
                f"another file outside the project"
            )
        return file.read(_KEY_BYTES + 1)


def refuse_beside(place: str) -> None:
    """Refuse a key that lies in a store's own folder: who brings the one brings the other.

    Raises:
        StoreError: It does.
    """
    path = key_path()
    if path.resolve().parent == Path(place).parent and path.parent.name == FOLDER:
        raise StoreError(
            f"the signing key {path} lies in the folder of the store {place}, with which it would "
            f"be copied: move it outside the project, and point NBDURABLE_KEY_FILE there"
        )


def _create_key(path: Path) -> bytes:
    """Write a new key beside its place, then link it there: two kernels agree on one key."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = secrets.token_bytes(_KEY_BYTES)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return _read(path)
    finally:
        draft.unlink(missing_ok=True)
    return key
