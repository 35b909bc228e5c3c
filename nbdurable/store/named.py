"""``FROM step('load')``: the steps that a query names, and the query that DuckDB gets.

Invariant: only what DuckDB's own tokenizer calls a name, a parenthesis and a string
is read as the mention of a step; a string, a comment or a quoted name that looks
like one stays as it is.
"""

from __future__ import annotations

import itertools
import re
from typing import NamedTuple

import duckdb

_QUOTED = re.compile(rb"'(.*)'", re.DOTALL)


class Mention(NamedTuple):
    """Where a query says ``step('name')``, in bytes of its UTF-8."""

    start: int
    end: int
    name: str


def mentions(sql: str) -> list[Mention]:
    """Return the steps that a query names, in its order."""
    try:
        data = sql.encode("utf-8")
    except UnicodeEncodeError:
        return []  # DuckDB will say what is wrong with it
    tokens = [*duckdb.tokenize(sql), (len(data), duckdb.token_type.comment)]
    words = [
        (start, data[start:end].strip())
        for (start, kind), (end, _) in itertools.pairwise(tokens)
        if kind != duckdb.token_type.comment
    ]
    found = []
    for index in range(len(words) - 3):
        (start, name), (_, opening), (_, text), (last, closing) = words[index : index + 4]
        qualified = index > 0 and words[index - 1][1] == b"."
        called = name.lower() == b"step" and not qualified and opening == b"(" and closing == b")"
        # Any other string, E'load' or $$load$$, begins with another letter.
        if called and (quoted := _QUOTED.fullmatch(text)):
            found.append(Mention(start, last + 1, quoted[1].decode("utf-8").replace("''", "'")))
    return found


def table_name(step: str) -> str:
    """Return the name under which a step's table is in DuckDB's reach."""
    return f"step('{step}')"


def with_tables(sql: str) -> str:
    """Return a query in which the mentions of steps are names of tables."""
    data = sql.encode("utf-8", "surrogatepass")
    for mention in reversed(mentions(sql)):
        quoted = '"' + table_name(mention.name).replace('"', '""') + '"'
        data = data[: mention.start] + quoted.encode("utf-8") + data[mention.end :]
    return data.decode("utf-8", "surrogatepass")
