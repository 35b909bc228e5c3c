"""Code and arguments to digests, and what could not be fingerprinted.

Invariant: equal values and equal code give equal digests in every process; unequal ones never
do. Nothing here is imported that the user did not import, and nothing is changed by looking.
"""

from __future__ import annotations

from nbdurable.fingerprint.contain import contains
from nbdurable.fingerprint.covered import NOT_TEXTS, nested, place_of, texts_in
from nbdurable.fingerprint.fingerprinter import Fingerprinter
from nbdurable.fingerprint.generators import draws_of, set_draws
from nbdurable.fingerprint.given import is_plain, joined_pieces, root_of
from nbdurable.fingerprint.packages import packages_used
from nbdurable.fingerprint.places import Places
from nbdurable.fingerprint.prints import (
    DRAWS,
    NOTHING_USED,
    Attribute,
    Covered,
    Held,
    Note,
    Pieces,
    Print,
    Used,
)
from nbdurable.fingerprint.purposes import purposes_of
from nbdurable.fingerprint.source import syntax_of
from nbdurable.fingerprint.strings import files_in, is_statement
from nbdurable.fingerprint.texts import still_defined

__all__ = [
    "DRAWS",
    "NOTHING_USED",
    "NOT_TEXTS",
    "Attribute",
    "Covered",
    "Fingerprinter",
    "Held",
    "Note",
    "Pieces",
    "Places",
    "Print",
    "Used",
    "contains",
    "draws_of",
    "files_in",
    "is_plain",
    "is_statement",
    "joined_pieces",
    "nested",
    "packages_used",
    "place_of",
    "purposes_of",
    "root_of",
    "set_draws",
    "still_defined",
    "syntax_of",
    "texts_in",
]
