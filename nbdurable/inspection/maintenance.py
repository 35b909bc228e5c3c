"""The upkeep of a store: what is begun anew, taken out, trusted, taken over.

Invariant: nothing here runs by itself, and nothing while a durable cell uses the store.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nbdurable import store as stores
from nbdurable.api import configuration
from nbdurable.api.configuration import clock, default_store, store_of
from nbdurable.api.open_stores import (
    close_stores,
    executed_at,
    leftovers_of,
    let_go,
    reading,
    undisturbed,
    unused,
)
from nbdurable.errors import CodecError, StoreError, UsageError
from nbdurable.store import LOCK_WAIT_SECONDS, MEMORY

from .at_hand import runs_in, store_holding

if TYPE_CHECKING:
    from nbdurable.store import Garbage, Survey


def restart(name: str, store: str | Path | None = None) -> str:
    """Make the next execution of `name` start a new run; the old ones stay as history.

    Raises:
        UsageError: There is no run of that name.
    """
    with reading(store_holding(name, store), LOCK_WAIT_SECONDS) as opened:
        if opened is None or not stores.restart(opened, name, clock().time()):
            known = sorted({one.name for one in stores.summaries(opened)}) if opened else []
            there = f"there are {', '.join(known)}" if known else "there are none yet"
            raise UsageError(f"restart {name}: no run has that name; {there}")
    return f"{name}: its next run starts from nothing; the old one stays as history"


@dataclass(frozen=True, slots=True)
class Collected:
    """What a store no longer needs: outcomes, run by run, and object files; sizes in bytes.

    ``freed`` is by how much the database's own file shrank.
    """

    found: tuple[Garbage, ...]
    files: int
    files_size: int
    removed: bool
    freed: int = 0


def collect(
    store: str | Path | None = None, *, older_than: float | None = None, remove: bool = False
) -> Collected:
    """Find what a store no longer needs, and take it out if told so.

    That is, runs that a newer one of their name has replaced, and outcomes of finished
    runs that were superseded: by other code, or by other values received.

    Args:
        store: The DuckDB file; by default the one that a durable cell would use.
        older_than: Leave alone what was saved in the last so many seconds.
        remove: Take it out and make the file small; else it is only looked at.

    Raises:
        UsageError: A durable cell of this process is using the store.
        StoreError: There is none, or it can't be written; then nothing is gone.
    """
    place = stores.place_of(store or default_store())
    with undisturbed(), reading(store, LOCK_WAIT_SECONDS) as opened:
        if opened is None:
            raise StoreError(f"there is no store at {place} yet")
        if running := executed_at(place):
            raise UsageError(f"gc: {running[0]} is running: wait until it has ended, or stop it")
        if any(leftovers_of(one.id) for one in stores.summaries(opened)):
            raise UsageError(
                "gc: steps of an interrupted cell still run and may be saved yet: run that cell "
                "again, which adopts them, or restart the kernel"
            )
        before = None if older_than is None else clock().time() - older_than
        found = tuple(stores.garbage(opened, before=before))
        files = stores.spare_files(opened, found)
        size = sum(file.stat().st_size for file in files)
        if not remove:
            return Collected(found, len(files), size, removed=False)
        # What no row names goes first: taking rows out needs some room itself.
        stores.remove_files(stores.spare_files(opened))
        if found:
            stores.remove(opened, found)
        stores.remove_files(files)
        try:
            freed = stores.compact(opened)
        finally:
            # The file may be another one now, under the same name, or DuckDB has given this
            # connection up: it is let go at once.
            if place != MEMORY:
                let_go(place)
        return Collected(found, len(files), size, removed=True, freed=freed)


def survey(store: str | Path | None = None) -> Survey:
    """Tell what is in a store, whatever key signed it, by its columns alone.

    Raises:
        StoreError: There is none, or it can't be read.
        UsageError: A durable cell is using it.
    """
    return stores.survey(unused(store))


def trust(store: str | Path | None = None, digest: str = "") -> Survey:
    """Sign everything in a store with this user's key; its values are replayed from then on.

    Args:
        store: The DuckDB file; by default the one that a durable cell would use.
        digest: What a survey showed; nothing is signed if the store is another by now.

    Returns:
        What was signed.

    Raises:
        StoreCorruptError: It contradicts itself; nothing was signed.
        StoreError: There is none, or it can't be read or written.
        UsageError: A durable cell is using it.
    """
    return stores.trust_store(unused(store), digest=digest)


def untrust(store: str | Path | None = None) -> str:
    """Take back that a store is this user's, and say so: nothing of it is replayed any more.

    Raises:
        StoreError: There is none, or it can't be read or written.
        UsageError: A durable cell is using it.
    """
    place = unused(store)
    stores.untrust_store(place)
    return (
        f"{place} is nobody's now: nothing of it is replayed until `%durable trust`, or "
        f"`nbdurable trust PATH`, has made it yours"
    )


def earlier_names() -> list[str]:
    """Return the notebooks, by their names, whose checkpoints may be this one's.

    Those beside it that are gone, so that it may have been renamed, and those that it is
    a copy of, as its own name tells. None if it has a store, or is told to use another.
    """
    store = Path(default_store())
    notebook = configuration.notebook()
    if notebook is None or store.exists() or store.parent != notebook.parent / ".nbdurable":
        return []
    found = []
    for other in sorted(store.parent.glob("*.duckdb")):
        original = notebook.with_name(f"{other.stem}.ipynb")
        copied = re.fullmatch(re.escape(other.stem) + _COPY, notebook.stem) is not None
        shared = other.stem == configuration.NO_NOTEBOOK or other.stem.endswith(stores.RUN_ENDING)
        if not shared and (copied or not original.exists()):
            found.append(other.stem)
    return found


_COPY = r"[-_ ]?(?:[Cc]opy)?[-_ ]?\(?\d*\)?"
"""What front ends and people put behind the name of a notebook that they copy."""


def adopt(name: str) -> str:
    """Take the checkpoints of the notebook called `name`: a copy, or if it is gone its own.

    Raises:
        UsageError: There are none, or this notebook has checkpoints itself.
        StoreError: They are in use, or can't be copied.
    """
    notebook = configuration.notebook()
    if notebook is None:
        raise UsageError(
            f"adopt {name}: no notebook is known here whose checkpoints they would be; to go on "
            f"from a store, name it with configure(store=...) or NBDURABLE_STORE"
        )
    stem = name.removesuffix(".ipynb")
    if not stem or Path(stem).name != stem:
        raise UsageError(
            f"adopt {name!r}: give the name of a notebook that was in {notebook.parent}, no path"
        )
    mine, theirs = Path(default_store()), Path(store_of(notebook.with_name(f"{stem}.ipynb")))
    if mine.exists() and any(one.saved for one in runs_in(str(mine), LOCK_WAIT_SECONDS)):
        raise UsageError(
            f"adopt {name}: {notebook.name} has checkpoints of its own in {mine}: move that file "
            f"away first, if you don't need it"
        )
    if not theirs.is_file():
        others = ", ".join(earlier_names())
        there = f"; there are those of {others}" if others else ""
        raise UsageError(f"adopt {name}: there are no checkpoints at {theirs}{there}")
    shared = stem == configuration.NO_NOTEBOOK or stem.endswith(stores.RUN_ENDING)
    gone = not shared and not notebook.with_name(f"{stem}.ipynb").exists()
    with undisturbed():
        close_stores()
        stores.Store.open(theirs).close()  # what is in its write-ahead log goes into the file
        if mine.exists():  # nothing is saved in it
            stores.Store.open(mine).close()
            mine.unlink()
        stores.hand_over(theirs, mine, keep=not gone)
    taken = "they were its own" if gone else f"{stem}{'' if shared else '.ipynb'} keeps its own"
    return f"{notebook.name} has the checkpoints of {stem} now; {taken}"


def store_apart(written: str, store: str | Path) -> Path:
    """Return the store that a run has beside another store, where no notebook is known.

    Args:
        written: The run's name as its cell has it, with its expressions.
        store: The other store.
    """
    return Path(store).with_name(f"{stores.run_stem(written)}.duckdb")


def adopt_line(stem: str) -> str:
    """Return the line with which a notebook takes the checkpoints of a store."""
    word = stem if re.fullmatch(r"[\w.:-]+", stem) else f'"{stem}"'
    return f"`%durable adopt {word}`"


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Checkpoints of a run in another store of the same folder.

    ``saved`` outcomes, begun last at ``last_started``; None where another process has the
    store open, so that they can't be counted.
    """

    store: Path
    saved: int | None = None
    last_started: float = 0.0


def elsewhere(written: str, name: str, store: str | Path) -> list[Elsewhere]:
    """Return where else in a store's folder there are checkpoints of a run.

    A run gets other stores by where it runs: in one that it has for itself where no notebook
    is known, else in the notebook's.

    Args:
        written: The run's name as its cell has it, with its expressions.
        name: The run's name.
        store: The store that has none.
    """
    mine = Path(store)
    own = store_apart(written, store)
    others = [own, mine.with_name(f"{configuration.NO_NOTEBOOK}.duckdb")]
    if configuration.notebook() is None:
        newest = sorted(mine.parent.glob("*.duckdb"), key=_changed, reverse=True)[:_LOOKED_AT]
        others += [one for one in newest if not one.stem.endswith(stores.RUN_ENDING)]
    found = []
    for other in dict.fromkeys(others):
        if other == mine or not other.is_file():
            continue
        try:
            runs = [one for one in runs_in(str(other), 0.0) if one.name == name and one.saved]
        except (StoreError, CodecError):
            if other == own:  # by its name it is this run's
                found.append(Elsewhere(other))
            continue
        if runs:
            last = max(one.last_started for one in runs)
            found.append(Elsewhere(other, sum(one.saved for one in runs), last))
    return found


_LOOKED_AT = 20


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
