"""Code that counts as another where a package that it uses has another version.

Invariant: asked only with `pin_packages`; the versions are those that are installed, and
stand among the code's parts, so that `why` names the package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbdurable.codec.versions import packages_of
from nbdurable.fingerprint import packages_used
from nbdurable.records import digest_of

if TYPE_CHECKING:
    from nbdurable.fingerprint import Places, Print


class Pinned:
    """One execution's codes with the versions of their packages."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._known: dict[bytes, tuple[bytes, Print]] = {}

    def code(self, function: Any, code: Print) -> tuple[bytes, Print]:
        """Return the versions of the packages that a step's code uses, and its code with them."""
        found = self._known.get(code.digest)
        if found is None:
            versions = packages_of(packages_used(function, self._places))
            said = [(name, version.encode()) for name, version in sorted(versions.items())]
            laid = b", ".join([b"%b %b" % (name.encode(), version) for name, version in said])
            pinned = code.pinned(digest_of(code.digest, laid), said)
            self._known[code.digest] = found = laid, pinned
        return found
