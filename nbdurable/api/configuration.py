"""What `configure` sets, and what holds where it sets nothing: store, limit, progress.

Invariant: a setting that can't have its value is refused when it is set.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbdurable import store as stores
from nbdurable.errors import StoreError, UsageError
from nbdurable.executors.clock import Clock, SystemClock
from nbdurable.steps.options import checked_executor, checked_reads

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Settings:
    """What `configure` sets."""

    store: str | Path | None = None
    strict: bool = False
    limit: int | None = None
    verify: bool = False
    progress: bool | None = None
    confirm: int | None = None
    pin_packages: bool = False
    reads: str | None = None
    executor: Any = None
    dask: dict[str, Any] | None = None


@dataclass(slots=True)
class _State:
    """What this process goes by; one instance, `_state`."""

    settings: Settings = field(default_factory=Settings)
    notebook: Path | None = None
    places: dict[str | None, str] = field(default_factory=dict)
    """What NBDURABLE_STORE, or None for the working folder, meant when it was first used.

    Under `_LAST`: the store of the run that was begun last, where no notebook is known.
    """
    clock: Clock = field(default_factory=SystemClock)


_state = _State()
_LAST = ""


def configure(**settings: Any) -> None:
    """Set what later runs use.

    Args:
        settings: ``store``, the DuckDB file (``":memory:"`` keeps nothing);
            ``strict``, refuse what can't be compared or saved; ``limit``, threads a
            run; ``verify``, read each large value and compare it with its checksum
            before it is replayed; ``progress``, True, show how each run stands
            wherever stderr goes, False, nowhere (by default, in notebooks and on
            terminals; NBDURABLE_PROGRESS says 1 or 0); ``confirm``, a number: when more
            saved outcomes than that would run again, the run is suspended before the
            first of them starts, and says how to go on; ``pin_packages``, another
            version of a package that a step's code uses makes it run again; ``reads``,
            what a file that was read and has changed does, as the step option says;
            ``executor``, where the bodies of sync steps run, as the step option says;
            ``dask``, Dask's own settings for each step, as in
            ``dask={"resources": {"GPU": 1}, "priority": 10, "workers": [...]}``. None
            sets a default back.

    Raises:
        UsageError: A setting is unknown or can't have this value.
    """
    known = tuple(one.name for one in fields(Settings))
    for name, value in settings.items():
        if name not in known:
            raise UsageError(
                f"configure({name}=...): unknown setting; there are {', '.join(known)}"
            )
        if name == "limit" and value is not None:
            check_limit(value)
        if name == "store":
            check_store(value)
            settings[name] = None if value is None else stores.place_of(value)
        if name == "confirm":
            check_confirm(value)
        if name in {"strict", "verify", "pin_packages"}:
            if value not in {None, True, False}:
                raise UsageError(f"configure({name}={value!r}): give True or False")
            settings[name] = bool(value)
        if name == "reads" and value is not None:
            checked_reads("configure", value)
        if name == "progress":
            check_progress(value)
        if name == "executor" and value is not None:
            checked_executor("configure", value)
        if name == "dask":
            check_dask(value)
    _state.settings = replace(_state.settings, **settings)


def settings() -> Settings:
    """Return what `configure` has set."""
    return _state.settings


def notebook() -> Path | None:
    """Return the notebook that this kernel runs; None where it is not known."""
    return _state.notebook


def set_notebook(path: Path | None) -> None:
    """Name the notebook that this kernel runs, or None where it is not known."""
    _state.notebook = path


def clock() -> Clock:
    """Return the clock that runs go by."""
    return _state.clock


@contextlib.contextmanager
def replaced_clock(clock: Clock) -> Iterator[None]:
    """Let runs that begin inside the block go by `clock`."""
    before, _state.clock = _state.clock, clock
    try:
        yield
    finally:
        _state.clock = before


def default_store() -> str:
    """Return the store that a question without a run's name is about.

    `configure`'s, NBDURABLE_STORE, or the notebook's. Where no notebook is known: the
    store of the run that was begun last, or the only one of the working folder.

    Raises:
        UsageError: The working folder has several, and none of them has been used.
    """
    if (known := known_store()) is not None:
        return known
    if (last := _state.places.get(_LAST)) is not None and Path(last).is_file():
        return last
    there = stores_of_folder(working_folder())
    if len(there) > 1:
        raise UsageError(
            f"there are {len(there)} stores in {working_folder()}: say which one is meant with "
            f"configure(store=...) or NBDURABLE_STORE: {', '.join(one.name for one in there)}"
        )
    return str(there[0] if there else working_folder() / f"{NO_NOTEBOOK}.duckdb")


def known_store() -> str | None:
    """Return the store that somebody has named, or the notebook's; None if neither is known.

    A relative path is resolved when it is set, or first used: a later ``os.chdir`` leads
    to no other store.
    """
    if _state.settings.store is not None:
        return str(_state.settings.store)
    chosen = os.environ.get("NBDURABLE_STORE")
    if not chosen:
        return None if _state.notebook is None else store_of(_state.notebook)
    if chosen not in _state.places:
        _state.places[chosen] = stores.place_of(chosen)
    return _state.places[chosen]


def store_for(run: str) -> str:
    """Return the store of a run: the one that is known, else the run's own.

    Args:
        run: The run's name, as it is written: of ``etl-{day}`` all days are in one store.
    """
    if (known := known_store()) is not None:
        return known
    _state.places[_LAST] = store_of_run(run)
    return _state.places[_LAST]


def store_of_run(run: str) -> str:
    """Return the store that a run has where no notebook is known."""
    return str(working_folder() / f"{stores.run_stem(run)}.duckdb")


def stores_at_hand() -> list[str]:
    """Return the stores that a question may be about: the one that is known, or the folder's."""
    if (known := known_store()) is not None:
        return [known]
    return [str(path) for path in stores_of_folder(working_folder())]


def stores_of_folder(folder: Path) -> list[Path]:
    """Return the stores in a folder of stores, by their names."""
    return sorted(path for path in folder.glob("*.duckdb") if path.is_file())


NO_NOTEBOOK = "default"
"""What the store of a working folder was called that all its runs shared."""


def is_chosen() -> bool:
    """Tell whether somebody has named the store."""
    return _state.settings.store is not None or bool(os.environ.get("NBDURABLE_STORE"))


def working_folder() -> Path:
    """Return the folder of the stores of the working folder, as it was when first asked for.

    Raises:
        StoreError: There is no working folder any more.
    """
    if None not in _state.places:
        try:
            _state.places[None] = str(stores.folder_for(Path.cwd()))
        except FileNotFoundError as error:
            raise StoreError(
                "the working folder was removed or moved, so there is no place for a store in it: "
                "change to another with os.chdir(...), or name a store with configure(store=...) "
                "or NBDURABLE_STORE"
            ) from error
    return Path(_state.places[None])


def store_of(notebook: Path) -> str:
    """Return the store of a notebook, beside it."""
    return str(stores.folder_for(notebook.parent) / f"{stores.file_stem(notebook.stem)}.duckdb")


def default_progress() -> bool | None:
    """Return whether runs show how they stand: `configure`'s word, or NBDURABLE_PROGRESS's.

    Raises:
        UsageError: NBDURABLE_PROGRESS is neither 1 nor 0.
    """
    if _state.settings.progress is not None:
        return _state.settings.progress
    said = os.environ.get("NBDURABLE_PROGRESS", "").strip().lower()
    if said and said not in _WORDS:
        raise UsageError(f"NBDURABLE_PROGRESS={said}: set it to 1 (show), 0 (don't), or not at all")
    return _WORDS[said] if said else None


_WORDS = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}


def default_limit() -> int:
    """Return how many threads a run may use unless it is told."""
    return _state.settings.limit or min(32, (os.cpu_count() or 1) + 4)


def check_limit(value: Any) -> None:
    """Refuse what is no number of threads."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"limit={value!r}: give a whole number, 1 or more")


def check_confirm(value: Any) -> None:
    """Refuse what is no number of outcomes; None asks for nothing."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise UsageError(f"confirm={value!r}: give a whole number, 0 or more, or None")


def check_progress(value: Any) -> None:
    """Refuse what is neither True, False nor None."""
    if value is not None and not isinstance(value, bool):
        raise UsageError(f"progress={value!r}: give True, False, or None")


_DASK = ("resources", "priority", "workers", "allow_other_workers")
"""What of Dask's own settings of a call is passed on."""


def check_dask(value: Any) -> None:
    """Refuse what are no settings of Dask's that can be passed on."""
    if value is None:
        return
    if not isinstance(value, dict):
        raise UsageError(f"configure(dask={value!r}): give a dict of {', '.join(_DASK)}")
    for name in value:
        if name not in _DASK:
            raise UsageError(
                f"configure(dask={{{name!r}: ...}}): unknown; Dask's settings that are passed on "
                f"are {', '.join(_DASK)}"
            )


def slots(limit: int | None) -> int:
    """Return how many worker processes a run uses: its limit, if it has one, or one a core."""
    given = limit or _state.settings.limit
    if given:
        return given
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable is not None else os.cpu_count() or 1


def check_store(value: Any) -> None:
    """Refuse what can't be a path; None is the default store."""
    if value is not None and not isinstance(value, str | Path):
        raise UsageError(f"store={value!r}: give the path of a DuckDB file")


def is_seconds(value: Any) -> bool:
    """Tell whether a value is a duration."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
