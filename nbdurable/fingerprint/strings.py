"""Names that strings name: SQL over frames, ``@name`` in a query, code and templates.

Invariant: a string that merely equals a name, or contains it as a word, names nothing. What
is named is only a name here; whether there is such a global is asked by who reads.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, NamedTuple

from nbdurable.fingerprint.parsing import parsed

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = "table"
ANY = "any"
CODE = "code"

_SQL = re.compile(
    r"\s*((--[^\n]*\n|/\*.*?\*/|\()\s*)*("
    r"select\b.*\bfrom\b|with\s+(recursive\s+)?[\w\"]+.*\bas\b"
    r"|from\s+[\w.\"]+\s*($|;|,|(select|where|join|left|inner|group|order|limit|as|positional)\b)"
    r"|insert\s+(or\s+\w+\s+)?into\b|update\s+[\w.\"]+\s+set\b|delete\s+from\b"
    r"|create\s+(or\s+replace\s+)?(temp\w*\s+)?(table|view|macro)\b"
    r"|(describe|summarize|show)\s+[\w.\"]+\s*;?\s*$|explain\s+select\b"
    r"|(un)?pivot\s+[\w.\"]+\s+on\b|copy\s+[\w.\"]+\s+(to|from)\b)",
    re.IGNORECASE | re.DOTALL,
)
_READER = re.compile(
    r"\b(from|join|copy|to|read_\w+|parquet_\w+|sniff_csv)\b[\s(\[]*['\"]", re.IGNORECASE
)
_STATEMENT = re.compile(
    r"\s*((--[^\n]*\n|/\*.*?\*/|\()\s*)*(select|with|from|insert|update|delete|create|copy|attach|call|"
    r"describe|summarize|show|explain|pivot|unpivot|values|set|pragma|install|load|drop|alter)\s",
    re.IGNORECASE | re.DOTALL,
)
_QUOTED = re.compile(r"'([^'\n]+)'|\"([^\"\n]+)\"")
_WORD = re.compile(r"[^\W\d]\w*")
_AT = re.compile(r"(?<![\w.@])@([^\W\d]\w*)")
_FIELD = re.compile(r"(?<!\{)\{\s*([^\W\d]\w*)|\$\{?([^\W\d]\w*)")
_BOUND = re.compile(r"[:@$]([^\W\d]\w*)|\{\s*([^\W\d]\w*)")
_LONGEST = 100_000
_LONGEST_QUERY = 20_000


class Named(NamedTuple):
    """A name in a string, and what it can stand for there."""

    name: str
    kind: str  # TABLE: data that is a table; ANY: data; CODE: data, functions, classes


def names_in(text: str) -> Iterator[Named]:
    """Yield what a constant names that nobody is seen to run: SQL, and ``@name``."""
    if len(text) > _LONGEST:
        return
    if "@" in text:
        for name in _AT.findall(text):
            yield Named(name, ANY)
    if _SQL.match(text):
        for name in _WORD.findall(text):
            yield Named(name, TABLE)


def files_in(text: str) -> Iterator[str]:
    """Yield what can be names of files in SQL: what is quoted, where something is read by name."""
    quoted = "'" in text or '"' in text
    if quoted and len(text) <= _LONGEST_QUERY and _READER.search(text):
        for found in _QUOTED.finditer(text):
            yield found[1] or found[2]


def is_statement(text: str) -> bool:
    """Tell whether a text begins as SQL does, and so is no name of files itself."""
    return _STATEMENT.match(text) is not None


def run_by(kind: str, text: str) -> Iterator[Named]:
    """Yield what a string names that is run as code of some kind, or looked up."""
    if len(text) > _LONGEST:
        return
    if kind == "code":
        yield from _in_code(text)
    elif kind == "query":
        yield from names_in(text)
        for name in _AT.findall(text):
            yield Named(name, ANY)
    elif kind == "sql":
        for name in _WORD.findall(text):
            yield Named(name, TABLE)
    elif kind == "magic":
        for found in _BOUND.findall(text):
            yield Named(next(filter(None, found)), ANY)
        for name in _WORD.findall(text):
            yield Named(name, TABLE)
    elif kind in {"template", "space"}:
        for found in _FIELD.findall(text):
            yield Named(next(filter(None, found)), ANY)
        if kind == "space" and text.isidentifier():
            yield Named(text, CODE)


def _in_code(text: str) -> Iterator[Named]:
    try:
        tree = parsed(text.strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield Named(node.id, CODE)


def looks(value: object, kind: str) -> bool:
    """Tell whether a global's value is what a string of this kind can name."""
    if kind == TABLE:
        return not isinstance(
            value, (str, bytes, int, float, complex, type(None), list, tuple, set)
        )
    return True
