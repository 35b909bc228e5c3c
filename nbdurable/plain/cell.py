"""One plain cell: what it depends on before it runs, what it has changed after, and back again.

Invariant: a record is restored only where every dependency that it names holds now; what has
been looked at is compared, what can't be is a reason to run.
"""

from __future__ import annotations

import ast
import types
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from nbdurable.errors import DurableError
from nbdurable.records import Part, digest_of

from . import ambient, groups, kept
from .definitions import has_state, is_around, is_own, replace_in_modules
from .reads import OutsideError, code_digest, own_code_digest, reached_by
from .record import ABSENT, ALIASES, AMBIENT, CLOCK, CODE, NAME, RESULT, Kept, joined
from .uses import used_parts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nbdurable.fingerprint import Fingerprinter
    from nbdurable.records import Message

    from .ambient import Ambient, Changes
    from .cell_text import CellText
    from .passes import Pass
    from .reads import Reached
    from .record import Found

_MOST_NAMED: Final = 3
_RELATIVE: Final = frozenset({"working folder"})
"""Parts of what is around that a change of theirs depends on."""

_ENVIRONMENT: Final = "os.environ"
_BY_BOTH: Final = frozenset({"_", "__", "___"})
"""Names that the shell gives its results, until the user binds them."""


@dataclass(slots=True)
class Before:
    """How things are before a cell runs, as far as it can depend on them.

    ``marks`` are the digests of groups, by all their names, ``alone`` those of the names of a
    group that the cell reads, by these; ``objects`` the identities behind the names. ``unkept``
    says why the cell always runs, nothing if it may be restored.
    """

    text: CellText
    reached: Reached
    around: Ambient
    code: bytes = b""
    marks: dict[frozenset[str], bytes] = field(default_factory=dict)
    alone: dict[frozenset[str], bytes] = field(default_factory=dict)
    modules: dict[str, bytes] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)
    unkept: str = ""


@dataclass(slots=True)
class After:
    """What a cell has changed: values, names, what is around, and on what that depends.

    ``marks`` are the digests of the groups that changed; ``unkept`` says why nothing of it can
    be saved, nothing if it can.
    """

    parts: list[Part] = field(default_factory=list)
    groups: list[frozenset[str]] = field(default_factory=list)
    marks: dict[str, bytes] = field(default_factory=dict)
    deleted: tuple[str, ...] = ()
    changes: Changes = field(default_factory=ambient.Changes)
    unkept: str = ""


def look(text: CellText, namespace: dict[str, Any], prints: Fingerprinter) -> Before:
    """Look at all that a cell depends on."""
    reached = reached_by(text, namespace)
    before = Before(text, reached, ambient.seen(), unkept=text.unkept or reached.unkept)
    before.objects = {name: id(value) for name, value in namespace.items() if groups.is_users(name)}
    if before.unkept:
        return before
    try:
        _mark_reads(before, namespace)
        data = frozenset(
            name for name in before.objects if not _is_code(namespace.get(name), namespace)
        )
        before.code = code_digest(prints, text, reached, namespace, data)
    except groups.NotComparable as error:
        before.unkept = f"{error} can't be compared"
    except OutsideError as error:
        before.unkept = str(error)
    except (DurableError, SyntaxError) as error:
        before.unkept = f"its code can't be compared: {error}"
    return before


def code_loaded(text: CellText, namespace: dict[str, Any], prints: Fingerprinter) -> bytes:
    """Return what stands for a cell's code once its imports and definitions have been executed.

    What an import leads to may be found only where the cell itself has set the way to it.

    Raises:
        DurableError: It can't be digested.
    """
    if not any(isinstance(one, ast.Import | ast.ImportFrom) for one in text.definitions.always):
        return b""
    data = frozenset(name for name, value in namespace.items() if not _is_code(value, namespace))
    return own_code_digest(prints, text, namespace, data | text.rebinds)


def _mark_reads(before: Before, namespace: dict[str, Any]) -> None:
    reads = before.reached.names
    for name in reads:
        if isinstance(value := namespace[name], types.ModuleType):
            before.modules[name] = digest_of(b"module", value.__name__.encode())
    data = frozenset(reads - before.modules.keys())
    for group in groups.partition(namespace, groups.reach(namespace, data)):
        before.marks[group] = _mark(namespace, group)
        if read := group & data:
            same = read == group
            before.alone[read] = before.marks[group] if same else _mark(namespace, read)


def _mark(namespace: dict[str, Any], group: frozenset[str]) -> bytes:
    return bytes.fromhex(groups.mark(namespace, group).hex())


def _is_code(value: Any, namespace: dict[str, Any]) -> bool:
    """Tell whether a name stands for code of the notebook, which is compared by its text."""
    if isinstance(value, types.ModuleType):
        return True
    if isinstance(value, types.FunctionType):
        return value.__globals__ is namespace
    return isinstance(value, type) and value.__module__ == namespace.get("__name__", "__main__")


# --- whether a record holds -------------------------------------------------------


def unheld(before: Before, found: Found, one: Pass) -> str:
    """Say why a record can't be restored now: its first dependency that doesn't hold, or nothing.

    Args:
        before: How things are.
        found: The record.
        one: The pass in which the cell is met.
    """
    for part in found.parts:
        if said := _unheld_part(before, part, found, one):
            return said
    if changed := one.changed_files(found):
        return f"the file {_listed(part.name for part in changed)} changed"
    return ""


def _unheld_part(before: Before, part: Part, found: Found, one: Pass) -> str:
    names = frozenset(part.name.split())
    match part.kind:
        case "cell name":
            state = before.modules.get(part.name, b"") or before.alone.get(names, b"")
            if not state and (gone := names - before.reached.names):
                return f"{_named(gone)} {_is(gone)} not there"
            if not state:
                return f"which objects {_named(names)} share changed"
            return "" if state == part.state else f"{_named(names)} changed"
        case "cell absent":
            there = names & before.objects.keys()
            return f"{_named(there)} {_is(there)} there now" if there else ""
        case "cell aliases":
            state = before.marks.get(names, b"")
            return (
                "" if state == part.state else f"what shares objects with {_named(names)} changed"
            )
        case "cell code":
            return "" if before.code == part.state else "the code that it uses changed"
        case "cell ambient":
            now = _around(before.around, part.name)
            return "" if now == part.state else f"{part.name} changed"
        case "cell clock":
            over = found.checkpoint.execution <= one.finished
            return f"it uses {part.name}, and the last pass finished" if over else ""
        case _:
            return ""


def _around(now: Ambient, name: str) -> bytes:
    """Return the digest of a part of what is around, or of some variables of the environment."""
    part, _, keys = name.partition(" ")
    if part == _ENVIRONMENT and keys:
        return now.digest(part, keys.split())
    return now.digest(name)


def _named(names: Iterable[str]) -> str:
    return _listed(f"`{name}`" for name in sorted(names))


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return ", ".join(found[:_MOST_NAMED]) + more


def _is(names: frozenset[str]) -> str:
    return "is" if len(names) == 1 else "are"


# --- what a cell has changed ------------------------------------------------------


def changes_of(
    before: Before,
    namespace: dict[str, Any],
    messages: tuple[Message, ...],
    *,
    clocks: bool,
    unseeded: frozenset[str] = frozenset(),
) -> After:
    """Find out what a cell has changed.

    Args:
        before: How things were.
        namespace: As it is now; under `RESULT` the value that was shown, if one was.
        messages: What it showed.
        clocks: Whether what reads a clock is a dependency.
        unseeded: Random generators whose state, before the cell, is of no consequence.
    """
    after = After()
    here = {name for name in namespace if groups.is_users(name)}
    # `u, _ = f()`: from then on the shell keeps its own results out of `_`, and so it stays.
    here |= _BY_BOTH & before.text.binds & namespace.keys()
    after.deleted = tuple(sorted(before.objects.keys() - here))
    after.changes = ambient.changed(before.around, ambient.seen())
    if refused := after.changes.refused:
        name, why = next(iter(refused.items()))
        after.unkept = f"it changes {name}, which can't be set again: {why}"
        return after
    try:
        _find_changed(before, after, namespace, here)
    except groups.NotComparable as error:
        after.unkept = f"{error} can't be compared"
        return after
    after.parts += _dependencies(before, after)
    moved = after.changes.draws - unseeded
    names = before.reached.names.union(*after.groups)
    used = used_parts(before.text, names, namespace, messages, before.reached.libraries)
    for name in sorted(moved | used | (_RELATIVE & after.changes.parts.keys())):
        after.parts.append(Part(AMBIENT, name, _around(before.around, name)))
    if clocks and before.reached.clocks:
        after.parts.append(Part(CLOCK, _listed(sorted(before.reached.clocks)), b""))
    return after


def _find_changed(before: Before, after: After, namespace: dict[str, Any], here: set[str]) -> None:
    """Add the groups that are new, or that are not as they were."""
    text = before.text
    touched = set(text.binds | text.deletes | before.reached.stores) & here
    touched |= {name for name in here if before.objects.get(name) != id(namespace[name])}
    for name in sorted(touched & text.rebinds):
        if isinstance(value := namespace[name], type) and is_own(namespace, value):
            raise groups.NotComparable(f"`{name}` (a class that is made by a call)")
    made = (text.definitions.defined | text.definitions.imported) - text.rebinds
    touched = {name for name in touched if name not in made or _keeps(namespace[name], namespace)}
    known = frozenset(
        name
        for name in (before.reached.names | touched) & here
        if name in touched or name not in before.modules
    )
    for name in sorted(touched):
        if is_around(namespace[name]):
            raise groups.NotComparable(f"`{name}` (settings of the process)")
    closure = frozenset(groups.reach(namespace, known)) & here
    closure = frozenset(name for name in closure if not is_around(namespace[name]))
    for group in groups.partition(namespace, closure):
        now = _mark(namespace, group)
        if not group & touched and before.marks.get(group) == now:
            continue
        if not group & touched and now == before.alone.get(group):
            continue
        after.groups.append(group)
        after.marks[joined(group)] = now


def _keeps(value: Any, namespace: dict[str, Any]) -> bool:
    """Tell whether what a definition made keeps something that may have changed since."""
    if not _is_code(value, namespace) or isinstance(value, types.ModuleType):
        return False
    return has_state(value)


def _dependencies(before: Before, after: After) -> Iterator[Part]:
    changed = frozenset(name for group in after.groups for name in group)
    for name, state in before.modules.items():
        yield Part(NAME, name, state)
    for read, state in before.alone.items():
        yield Part(NAME, joined(read), state)
    for group, state in before.marks.items():
        if group & changed:
            yield Part(ALIASES, joined(group), state)
    if before.reached.absent:
        yield Part(ABSENT, joined(before.reached.absent), b"")
    yield Part(CODE, "", before.code)
    if before.reached.variables:
        name = f"{_ENVIRONMENT} {joined(before.reached.variables)}"
        yield Part(AMBIENT, name, _around(before.around, name))


def kept_values(
    before: Before, after: After, namespace: dict[str, Any], *, shown: bool, code: bytes
) -> Kept:
    """Return what is to be saved of a cell; `code` is what `code_loaded` gives.

    Raises:
        NotKept: A value can't be saved, or would come back as another.
    """
    encoded = [kept.encode(namespace, group) for group in after.groups]
    for one in encoded:
        _prove(one, namespace)
    encoded.sort(key=lambda one: not one.classes)  # instances are made after their classes
    names = sorted(name for group in after.groups for name in group)
    same = tuple(one for one in names if before.objects.get(one) == id(namespace[one]))
    return Kept(tuple(encoded), after.deleted, after.marks, after.changes.parts, shown, same, code)


_proven: set[tuple[str, ...]] = set()
_PROVEN_ONCE: Final = 1 << 20
"""Bytes from which a group is decoded to be compared only once for the classes of its values."""


def _prove(one: kept.Kept, namespace: dict[str, Any]) -> None:
    """Make sure that a group comes back as it is, before anything relies on that."""
    kinds = tuple(sorted({groups.kind_of(namespace[name]) for name in one.names}))
    if one.size > _PROVEN_ONCE and kinds in _proven:
        return
    if fault := kept.fault(one, namespace):
        raise kept.NotKept(f"{_named(one.names)}: {fault}")
    _proven.add(kinds)


# --- back again -------------------------------------------------------------------


def decoded(saved: Kept, namespace: dict[str, Any]) -> dict[str, object]:
    """Return the values of a record by name; nothing is bound, but definitions get their state.

    Raises:
        DurableError: They can't be restored.
    """
    found: dict[str, object] = {}
    for group in saved.groups:
        found |= kept.decode(group, namespace)
    return found


def bind(
    text: CellText, saved: Kept, values: dict[str, object], namespace: dict[str, Any]
) -> list[tuple[object, object]]:
    """Bind restored values, also in the modules that they are of; take deleted names out.

    Returns:
        Pairs of objects: one that was changed in place, and what stands for it from now on.
    """
    pairs = [
        (namespace[name], values[name])
        for name in saved.same
        if name in namespace and name in values and namespace[name] is not values[name]
    ]
    imported = text.definitions.imported - text.rebinds
    replace_in_modules(
        (name, namespace[name], values[name])
        for name in {*saved.same, *imported}
        if name in namespace and name in values and namespace[name] is not values[name]
    )
    namespace.update(values)
    namespace.pop(RESULT, None)
    for name in saved.deleted:
        namespace.pop(name, None)
    return pairs


def differing(saved: Kept, namespace: dict[str, Any]) -> tuple[str, ...]:
    """Return the names whose values are not as a record has them, by their digests."""
    found: list[str] = []
    for names, state in saved.marks.items():
        if RESULT in names:
            continue
        group = frozenset(names.split())
        try:
            now = _mark(namespace, group)
        except groups.NotComparable:
            now = b""
        if now != state:
            found += sorted(group)
    return tuple(found)
