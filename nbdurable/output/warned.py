"""Warnings as data: kept with a step's output, and issued where that is shown.

Invariant: a warning is issued from its data alone, on the first pass as on replay, so
both give the same to whoever shows or records warnings at that place.
"""

from __future__ import annotations

import importlib
import json
import linecache
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def data_of(message: warnings.WarningMessage) -> str:
    """Return a warning as JSON: its text, its categories from its own up, its place."""
    line = message.line
    if line is None:
        # Another kernel doesn't know the source of this one's cells.
        line = linecache.getline(message.filename, message.lineno).strip()
    categories = [
        f"{category.__module__}:{category.__qualname__}"
        for category in message.category.__mro__
        if issubclass(category, Warning)
    ]
    return json.dumps([str(message.message), categories, message.filename, message.lineno, line])


def message_of(data: str) -> warnings.WarningMessage:
    """Return the warning that `data_of` laid out.

    A category that can't be found any more, or can't be made of a text, gives way to
    the one that it is derived from.
    """
    text, categories, filename, lineno, line = json.loads(data)
    for category in _found(categories):
        try:
            warning = category(text)
        except TypeError:
            continue
        if str(warning) == text:
            return warnings.WarningMessage(warning, category, filename, lineno, line=line)
    return warnings.WarningMessage(Warning(text), Warning, filename, lineno, line=line)


def text_of(data: str) -> str:
    """Return a warning as Python writes it, without asking its class."""
    text, categories, filename, lineno, line = json.loads(data)
    name = categories[0].rpartition(":")[2]
    return f"{filename}:{lineno}: {name}: {text}\n" + (f"  {line}\n" if line else "")


def _found(categories: list[str]) -> Iterator[type[Warning]]:
    """Yield the categories that are there, or can be imported."""
    for name in categories:
        module, _, path = name.partition(":")
        try:
            found = sys.modules.get(module) or importlib.import_module(module)
            for part in path.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError):
            continue
        if isinstance(found, type) and issubclass(found, Warning):
            yield found
