"""Code and arguments to digests, and what could not be fingerprinted.

Invariant: equal values and equal code give equal digests in every process; unequal ones never
do. Nothing here is imported that the user did not import, and nothing is changed by looking.
"""

from __future__ import annotations

from .contain import contains
from .fingerprinter import Fingerprinter
from .prints import Held, Note, Print

__all__ = ["Fingerprinter", "Held", "Note", "Print", "contains"]
