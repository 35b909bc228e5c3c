"""What outcomes were saved with: Python and the packages that they name, and what changed since.

Invariant: nothing is imported to learn its version, and what a store says of versions
is text of anybody's: it is compared and shown, and decides nothing by itself.
"""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from typing import TYPE_CHECKING

from nbdurable.labels import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST_NAMED = 3
_NO_PACKAGES = sys.stdlib_module_names | {"__main__"}


def packages_of(modules: Iterable[str]) -> dict[str, str]:
    """Return the installed packages among first parts of modules' names, with their versions."""
    foreign = [name for name in modules if name not in _NO_PACKAGES]
    found = {name: _version(name) for name in foreign}
    return {name: version for name, version in found.items() if version}


def as_text(packages: dict[str, str]) -> str:
    """Return packages as a store's column has them: ``numpy 2.1.0, pandas 3.0.1``."""
    return printable(", ".join(f"{name} {version}" for name, version in sorted(packages.items())))


def changes(python: str, packages: str) -> list[tuple[str, str, str]]:
    """Return name, version then and version now of what has changed; "" for what is gone."""
    then = dict(one.rsplit(" ", 1) for one in packages.split(", ") if " " in one)
    now = {name: _version(name) for name in then}
    then["Python"], now["Python"] = python, platform.python_version()
    return [(name, then[name], now[name]) for name in then if then[name] != now[name]]


def sentence(changed: list[tuple[str, str, str]], error: str) -> str:
    """Say with what an outcome was saved and can't be read; what the `error` names comes first."""
    ordered = sorted(changed, key=lambda one: one[0] not in error)
    named, more = ordered[:_MOST_NAMED], len(ordered) - _MOST_NAMED
    then = ", ".join(f"{name} {before}" for name, before, _ in named)
    now = ", ".join(f"{name} {after}" if after else f"no {name}" for name, _, after in named)
    rest = f" (and {more} more changed)" if more > 0 else ""
    return printable(f"it was saved with {then} and can't be read with {now}{rest}")


def _version(name: str) -> str:
    """Return the version of the package that a module's first name is of; "" if nobody knows."""
    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, ValueError):
        # Not every package is called as what it installs, but most say their version.
        return str(getattr(sys.modules.get(name), "__version__", ""))
