"""The per-user signing key: made once, kept outside every project.

Invariant: the key never lies beside a store, so a store that came from elsewhere
can't bring the key that would make it trusted.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from nbdurable.errors import StoreError

from .disk import file_error
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
        return Path(chosen).expanduser()
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
            key = path.read_bytes()
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
        raise StoreError(
            f"the signing key {path} has {len(key)} bytes instead of {_KEY_BYTES}; restore it, or "
            f"remove it and lose what it signed"
        )
    return key


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
            return path.read_bytes()
    finally:
        draft.unlink(missing_ok=True)
    return key
