"""Which global names a code object reads, and what it imports, from its instructions.

Invariant: what is read only by nested functions, classes or comprehensions counts too.
"""

from __future__ import annotations

import dis
from types import CodeType
from typing import NamedTuple

_ATTRIBUTE = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_GLOBAL = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_FILLER = frozenset({"NOP", "CACHE", "PUSH_NULL", "EXTENDED_ARG", "NOT_TAKEN", "COPY_FREE_VARS"})


class Reads(NamedTuple):
    """Names that code reads beyond its own."""

    names: tuple[tuple[str, ...], ...]  # attribute chains from a global name on
    imported: tuple[tuple[str, int, str | None], ...]  # module, level, attribute


def reads_of(code: CodeType) -> Reads:
    """Collect what ``code`` and everything nested in it reads."""
    names: set[tuple[str, ...]] = set()
    imported: set[tuple[str, int, str | None]] = set()
    _collect(code, names, imported)
    return Reads(
        tuple(sorted(names)), tuple(sorted(imported, key=lambda i: (i[0], i[1], i[2] or "")))
    )


def _collect(
    code: CodeType, names: set[tuple[str, ...]], imported: set[tuple[str, int, str | None]]
) -> None:
    steps = [i for i in dis.get_instructions(code) if i.opname not in _FILLER]
    local: dict[str, tuple[str, int]] = {}
    module: tuple[str, int] | None = None
    for at, step in enumerate(steps):
        if step.opname in _GLOBAL:
            names.add((str(step.argval), *_attributes(steps, at + 1)))
        elif step.opname == "IMPORT_NAME":
            level = steps[at - 2].argval if at > 1 else 0
            module = (str(step.argval), level if isinstance(level, int) else 0)
            imported.add((*module, None))
        elif step.opname == "IMPORT_FROM" and module:
            imported.add((*module, str(step.argval)))
        elif step.opname.startswith("STORE_FAST") and steps[at - 1].opname == "IMPORT_NAME":
            local[str(step.argval)] = module or ("", 0)
        elif step.opname.startswith("LOAD_FAST") and step.argval in local:
            chain = _attributes(steps, at + 1)
            where = local[step.argval]
            imported.update((*where, ".".join(chain[:n])) for n in range(1, len(chain) + 1))
    for const in code.co_consts:
        if isinstance(const, CodeType):
            _collect(const, names, imported)


def _attributes(steps: list[dis.Instruction], at: int) -> tuple[str, ...]:
    """Attributes that are read in a row, from instruction ``at`` on."""
    chain: list[str] = []
    while at < len(steps) and steps[at].opname in _ATTRIBUTE:
        chain.append(str(steps[at].argval))
        at += 1
    return tuple(chain)
