"""Code and arguments to digests, and what could not be fingerprinted.

Invariant: equal values and equal code give equal digests in every process; unequal ones never
do. Nothing here is imported that the user did not import, and nothing is changed by looking.
"""

from __future__ import annotations

from nbdurable.fingerprint.contain import contains
from nbdurable.fingerprint.covered import nested, texts_in
from nbdurable.fingerprint.fingerprinter import Fingerprinter
from nbdurable.fingerprint.places import Places
from nbdurable.fingerprint.prints import Covered, Held, Note, Print
from nbdurable.fingerprint.texts import still_defined

__all__ = [
    "Covered",
    "Fingerprinter",
    "Held",
    "Note",
    "Places",
    "Print",
    "contains",
    "nested",
    "still_defined",
    "texts_in",
]
