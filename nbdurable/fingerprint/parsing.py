"""Text to syntax trees, by one thread at a time.

Python 3.11 counts how deep a tree is in one place for all threads: two that make trees at
once can end with ``SystemError: AST constructor recursion depth mismatch``.
"""

from __future__ import annotations

import ast
import threading
from typing import Any

making_trees = threading.RLock()
"""Held while a syntax tree is made, or compiled."""


def parsed(text: str, path: str = "<unknown>") -> Any:
    """Return the syntax tree of a module's text, as `ast.parse` does, with its errors."""
    with making_trees:
        return ast.parse(text, path)
