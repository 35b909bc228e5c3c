"""What `configure` sets: each value, where it comes from, and how it is read from words.

Invariant: nothing is set here; `configure` is the one that sets.
"""

from __future__ import annotations

import difflib
import os
from typing import TYPE_CHECKING, Final

from nbdurable import store as stores
from nbdurable.api import configuration
from nbdurable.errors import UsageError
from nbdurable.steps.options import EXECUTORS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .reports import Row

MEANINGS: Final = {
    "store": "the DuckDB file that holds the checkpoints",
    "strict": "refuse what can't be compared or saved",
    "limit": "sync steps of a run at once",
    "verify": "compare large values with their checksums before they are replayed",
    "progress": "show how runs stand",
    "confirm": "so many saved outcomes may run again unasked",
    "pin_packages": "another version of a package that a step uses makes it run again",
    "reads": "what a file that was read and has changed does: rerun, tell, or ignore",
    "executor": "where the bodies of sync steps run: threads, process, dask",
    "dask": "Dask's own settings of each step; set by nbdurable.configure(dask={...})",
}
"""What `configure` knows, and what it is for."""

_SWITCHES: Final = {"on": True, "true": True, "yes": True, "1": True} | {
    "off": False, "false": False, "no": False, "0": False,
}  # fmt: skip
_DEFAULT: Final = "default"


def shown() -> list[Row]:
    """Return a row a setting: its value, where that comes from, what it is for."""
    set_here = configuration.settings()
    values = {
        "store": configuration.known_store()
        or str(configuration.working_folder() / f"*{stores.RUN_ENDING}.duckdb"),
        "strict": _switch(set_here.strict),
        "limit": configuration.default_limit(),
        "verify": _switch(set_here.verify),
        "progress": _switch(configuration.default_progress()),
        "confirm": "any number" if set_here.confirm is None else set_here.confirm,
        "pin_packages": _switch(set_here.pin_packages),
        "reads": set_here.reads or "named files rerun, others tell",
        "executor": _named(set_here.executor),
        "dask": "none" if not set_here.dask else ", ".join(set_here.dask),
    }
    rows: list[Row] = [
        {"setting": name, "value": value, "from": _origin(name), "": MEANINGS[name]}
        for name, value in values.items()
    ]
    moved = "NBDURABLE_KEY_FILE" in os.environ
    rows.append(
        {
            "setting": "key",
            "value": str(stores.key_path()),
            "from": "NBDURABLE_KEY_FILE" if moved else _DEFAULT,
            "": "your key, which signs what is saved; NBDURABLE_KEY_FILE moves it",
        }
    )
    return rows


def read(words: Iterable[str]) -> dict[str, object]:
    """Read ``name=value`` words, as `configure` takes them; ``name=default`` sets it back.

    Raises:
        UsageError: A word is none, or its setting is unknown, or no switch.
    """
    found: dict[str, object] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if name not in MEANINGS:
            near = difflib.get_close_matches(name, MEANINGS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(MEANINGS)}"
            raise UsageError(f"%durable config: no setting is called {name}: {hint}")
        if not equals or not text:
            raise UsageError(f"%durable config {word}: give a value, as in {name}={_example(name)}")
        found[name] = _value(name, text)
    return found


def choices(name: str) -> list[str]:
    """Return the words that a setting may be set to, where they can be listed."""
    if name == "reads":
        return ["rerun", "tell", "ignore", _DEFAULT]
    if name == "executor":
        return [*EXECUTORS, _DEFAULT]
    switches = {"strict", "verify", "progress", "pin_packages"}
    return ["on", "off", _DEFAULT] if name in switches else [_DEFAULT]


def _value(name: str, text: str) -> object:
    if text == _DEFAULT:
        return None
    if name in {"store", "reads", "executor"}:
        return text
    if name == "dask":
        raise UsageError("%durable config dask: it is set by nbdurable.configure(dask={...})")
    if name in {"limit", "confirm"}:
        if not text.isdecimal():
            least = 1 if name == "limit" else 0
            raise UsageError(f"%durable config {name}={text}: give a whole number, {least} or more")
        return int(text)
    if text.lower() not in _SWITCHES:
        raise UsageError(f"%durable config {name}={text}: give on, off, or default")
    return _SWITCHES[text.lower()]


def _example(name: str) -> str:
    examples = {"store": "warehouse.duckdb", "limit": "8", "confirm": "10", "reads": "tell"}
    examples["executor"] = "process"
    return examples.get(name, "on")


def _named(executor: object) -> str:
    """Return what an executor is called."""
    if executor is None or isinstance(executor, str):
        return executor or "threads"
    return type(executor).__name__


def _switch(value: bool | None) -> str:  # noqa: FBT001 - what it says
    if value is None:
        return "in notebooks, on terminals"
    return "on" if value else "off"


def _origin(name: str) -> str:
    """Say where the value of a setting comes from."""
    if getattr(configuration.settings(), name) != getattr(configuration.Settings(), name):
        return "configure"
    variable = f"NBDURABLE_{name.upper()}"
    if name in {"store", "progress"} and os.environ.get(variable):
        return variable
    if name == "store":
        return "this notebook" if configuration.notebook() is not None else "this folder"
    return _DEFAULT
