"""`diagnose`: a store and what it needs, looked at from outside.

Invariant: reads only, but for what any opening does; what is wrong is a finding,
never an error.
"""

from __future__ import annotations

import platform
import stat
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from nbdurable import store as stores
from nbdurable.api import open_stores
from nbdurable.errors import DurableError
from nbdurable.records import RunStatus

from .reports import size_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nbdurable.store import Store


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the doctor looked at; ``sound`` is None where nothing could be wrong."""

    what: str
    found: str
    sound: bool | None = None


def diagnose(store: str) -> list[Finding]:
    """Look at a store and at what it needs: files, versions, key, lock, invariants, runs."""
    return [*_files(store), *_versions(), _key(), *_inside(store)]


def _files(store: str) -> Iterator[Finding]:
    yield Finding("store", f"{store}, {size_of(Path(store).stat().st_size)}")
    log = Path(f"{store}.wal")
    if log.exists():
        yield Finding("write-ahead log", f"{size_of(log.stat().st_size)}, not yet in the store")
    objects = Path(f"{store}.objects")
    if objects.is_dir():
        sizes = [one.stat().st_size for one in objects.rglob("*") if one.is_file()]
        yield Finding("large values", f"{len(sizes)} files, {size_of(sum(sizes))}")


def _versions() -> Iterator[Finding]:
    versions = [f"{name} {metadata.version(name)}" for name in ("nbdurable", "duckdb")]
    yield Finding("versions", ", ".join([*versions, f"Python {platform.python_version()}"]))


def _key() -> Finding:
    try:
        path = stores.key_path()
    except DurableError as error:
        return Finding("signing key", str(error), sound=False)
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return Finding("signing key", f"{path} is not there yet; the first use makes it")
    except OSError as error:
        return Finding("signing key", f"{path}: {error.strerror}", sound=False)
    if mode & 0o077:
        return Finding("signing key", f"{path} can be read by others: chmod 600 it", sound=False)
    return Finding("signing key", str(path), sound=True)


def _inside(store: str) -> Iterator[Finding]:
    try:
        with open_stores.reading(store) as opened:
            assert opened is not None
            yield Finding("lock", "nobody else holds the store", sound=True)
            problems = stores.check(opened)
            sentence = f"{len(problems)} invariants do not hold" if problems else "all hold"
            yield Finding("invariants", sentence, sound=not problems)
            for problem in problems:
                yield Finding("", problem, sound=False)
            yield from _unfinished(opened)
    except DurableError as error:
        yield Finding("opening", str(error), sound=False)


def _unfinished(opened: Store) -> Iterator[Finding]:
    newest = {one.name: one for one in reversed(stores.summaries(opened))}
    for one in newest.values():
        if one.status is not RunStatus.FINISHED and one.executions:
            yield Finding(
                "unfinished run",
                f"{one.name}: {one.status}, {one.saved} saved; run its cell to resume",
            )
