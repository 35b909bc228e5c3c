"""Code to a digest: a function, and all project code and global data that it reaches.

Invariant: what a step writes is no input, wherever in the reached code the write is found.
Functions that call each other are a graph: each gets a digest of its own text and of what it
holds, then twice one of itself and what its names stand for, and the whole is the root's with
the set of all.
"""

from __future__ import annotations

import functools
import re
import sys
import types
from collections import Counter, defaultdict, deque
from hashlib import blake2b
from itertools import repeat
from operator import is_
from typing import TYPE_CHECKING, Any, NamedTuple

from nbdurable.fingerprint.builtin import is_step
from nbdurable.fingerprint.classes import attributes_of, class_unit, creates, documents
from nbdurable.fingerprint.covered import Covered
from nbdurable.fingerprint.following import MISSING, Slot, reference
from nbdurable.fingerprint.given import pieces_of
from nbdurable.fingerprint.prints import (
    NO_SOURCE,
    NOTHING_USED,
    WRITTEN,
    Content,
    Ignored,
    Note,
    Pieces,
    Print,
    Used,
    digest16,
)
from nbdurable.fingerprint.units import Unit, function_unit, label_of, module_unit
from nbdurable.fingerprint.values import Owner, Walk, sealed, text_of
from nbdurable.fingerprint.writes import ALWAYS, Write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nbdurable.fingerprint.places import Places

_VERSION = b"nbdurable code 1"
_HELD_BYTES = 65536  # strings and bytes up to this size are kept to be compared by identity
_MOST_ITEMS = 1000
_DEEPEST = 100
_COUNTED = frozenset(
    {int, float, str, bytes, bool, type(None), list, dict, set, tuple, deque, defaultdict, Counter}
)
"""Kinds of data that are counted in, appended to, or remember results; all others are tables."""
_CONTAINERS = (list, dict, set, bytearray, deque)
_WRAPPING = (
    classmethod,
    staticmethod,
    property,
    functools.cached_property,
    functools.partialmethod,
)
_CALLABLES = (types.FunctionType, type, types.MethodType, functools.partial)
_FOLLOWED = frozenset({"global", "item", "cell"})  # places behind which chains are followed
_OF_FUNCTIONS = frozenset({"default", "kwdefault", "cell"})
_WORD = re.compile(r"[^\W\d]\w*")

Place = tuple[str, int, Any]


class Read(NamedTuple):
    """One value that the code read."""

    slot: Slot
    name: str
    text: bytes
    value: Any  # kept only if it can't change; else MISSING
    sampled: bytes | None
    loose: bool = False  # it may move while the step runs
    settled: bytes | None = None  # without what changes by being used
    changing: bool = False  # there are instances in it, or it draws
    address: int = 0


def unit_of(value: Any, places: Places) -> Unit:
    """Describe a project function, class or module."""
    if isinstance(value, type):
        return class_unit(value, places)
    if isinstance(value, types.ModuleType):
        return module_unit(value, places)
    return function_unit(value, places)


class _Pass:
    """One try at reaching everything; repeated when a write was found too late."""

    def __init__(
        self,
        owner: Owner,
        root: Any,
        ignore: Ignored,
        written: dict[Place, Note],
        used: Used = NOTHING_USED,
    ) -> None:
        self.owner = owner
        self.root = direct(root, owner)
        self.ignore = ignore
        self.written = written
        self.used: set[Place] = set()
        self.places: dict[Place, Slot] = {}  # of written globals
        self.table: dict[int, Unit] = {}
        self.reads: list[Read] = []
        self.edges: dict[int, list[tuple[str, bytes, int]]] = {}
        self.walk = Walk(owner, "", own=self.own, ignore=ignore, used=used)
        self.walk.as_data = False
        self.named_units: list[Any] = []  # those that are reached by names alone
        self.late = False
        self.root_text = b""
        self.docs: dict[str, list[bytes]] = {}
        self.runs: set[str] = set()
        self._seen: set[Place] = set()
        self._documented: set[int] = set()
        self._own_functions = set(map(id, _unwrapped(self.root)))
        self._defining = False  # whether what is met now runs at definition only

    def run(self, root: Any, *, documented: bool) -> _Pass:
        """Reach everything from ``root`` on."""
        self.walk.start(_name(root))
        if documented and self.root is not None:
            self.walk.documented[id(self.root)] = self.root
        self.root_text = self.walk.top(root)
        self._drain()
        return self

    def own(self, walk: Walk, value: Any) -> bytes:
        """Write out a unit's text and what it holds, without what it reads by name."""
        unit = self.unit(value)
        out = [b"u", sealed(text_of("") + unit.text, 64)]
        depth, outer, root_at = len(walk.path), walk.as_data, walk.root_at
        walk.root_at = depth
        for slot in unit.slots:
            if self._left_out(slot):
                continue
            held = slot.get()
            if held is MISSING:
                continue
            self.used.add(slot.identity())
            walk.path.append(slot.name)
            walk.as_data = _is_data(slot, held, self.owner)
            bare = isinstance(held, types.ModuleType) and self._target(slot, held) is None
            text = b"m" if bare else walk.encode(held)
            out += (text_of(slot.kind), text_of(slot.short), text)
            del walk.path[depth:]
        walk.as_data, walk.root_at = outer, root_at
        return b"".join([*out, b";"])

    def unit(self, value: Any) -> Unit:
        """Describe a unit once per pass, and take note of what it writes."""
        unit = self.table.get(id(value))
        if unit is None:
            unit = self.table[id(value)] = unit_of(value, self.owner.places)
            self.runs |= unit.runs
            if not self._defining:
                for write in unit.writes:
                    self._write(write, unit, value)
            if not unit.sourced:
                self.walk.notes[Note(NO_SOURCE, unit.label, "its instructions count")] = None
        return unit

    def _left_out(self, slot: Slot) -> bool:
        names, space = self.ignore
        if names:
            if slot.kind in {"global", "item"}:
                root = slot.key[0] if slot.kind == "item" else slot.key
                if slot.holder is space and root in names:
                    return True
            elif slot.kind in _OF_FUNCTIONS and id(slot.holder()) in self._own_functions:
                return slot.name in names or _root_place(slot) in self.written
        return _root_place(slot) in self.written and not holds_code(slot.get())

    def _write(self, write: Write, unit: Unit, fn: Any) -> None:
        """Put a written place on the list, if what is there can be written at all."""
        if write.scope == "member":
            owner = next((c for c in fn.__mro__ if write.attribute in vars(c)), None)
            if owner is not None and isinstance(vars(owner)[write.attribute], (*_CONTAINERS, int)):
                self._put(_member(owner, str(write.attribute)), unit)
            return
        if isinstance(fn, types.FunctionType) and creates(fn):
            return
        slot = _written_slot(write, fn, unit)
        if slot is None:
            return
        value = slot.get()
        attribute = write.attribute
        if isinstance(value, types.ModuleType) and attribute and self.owner.places.module(value):
            space = vars(value)
            slot = Slot("global", space, attribute, f"{value.__name__}.{attribute}")
            value, attribute = slot.get(), None
        if isinstance(value, type) and attribute:
            slot = _member(value, attribute)
            value = slot.get()
            if isinstance(value, types.FunctionType):
                return
        elif attribute and (is_step(value) or isinstance(value, types.FunctionType)):
            slot = Slot("attribute", reference(value), attribute, f"{slot.name}.{attribute}")
            value = slot.get()
        elif isinstance(value, (types.ModuleType, types.FunctionType, type)) and (
            write.method or attribute or write.root != slot.key
        ):
            return
        if write.method and not _changes(write, value):
            return
        self._put(slot, unit)

    def _put(self, slot: Slot, unit: Unit) -> None:
        place = slot.identity()
        if place not in self.written:
            self.late |= place in self.used
            self.written[place] = Note(WRITTEN, slot.name, unit.label)
        if slot.kind == "global":
            self.places[place] = slot

    def contents(self) -> Iterator[Content]:
        """Yield the globals whose content is compared with what this code left there."""
        names, space = self.ignore
        for slot in self.places.values():
            if slot.holder is space and slot.key in names:
                continue
            touched = [
                unit.touched
                for unit in self.table.values()
                if unit.touched is not None and unit.space is slot.holder
            ]
            value = slot.get()
            table = type(value) not in _COUNTED and not holds_code(value)
            read = any(
                slot.key in one.read or (table and slot.key in one.counted) for one in touched
            )
            if read or any(slot.key in one.stored for one in touched):
                yield Content(slot.name, slot.get, read)

    def _drain(self) -> None:
        """Follow names from unit to unit; data last, when most writes are known.

        What only decorators read comes after all else: it ran when things were defined.
        """
        data: deque[tuple[int, Slot, str]] = deque()
        done = 0
        decorated = 0
        while True:
            waiting = list(self.walk.units.values())[done:]
            if waiting:
                done += len(waiting)
                for value in waiting:
                    self._follow(value, data)
            elif data:
                if not self.named_units:
                    self.named_units = list(self.walk.units.values())
                self._read(*data.popleft())
            elif not self._document() and decorated == done:
                return
            elif len(self.walk.units) == done and not data:
                self._defining = True
                for value in list(self.walk.units.values())[decorated:done]:
                    self._names(id(value), self.unit(value).decorated, data)
                decorated = done

    def _follow(self, value: Any, data: deque[tuple[int, Slot, str]]) -> None:
        unit = self.unit(value)
        self.walk.start(unit.label)
        edges = self.edges[id(value)] = []
        edges += [("module", text_of(name), 0) for name in unit.external]
        edges += [("import", text_of(name) + text, 0) for name, text in unit.texts]
        for slot in unit.slots:
            held = slot.get()
            target = self._target(slot, held)
            if target is not None and not self._left_out(slot):
                edges.append((slot.short, b"", id(target)))
                self._met(slot, target)
            if slot.kind != "base" and (target is not None or type(held) is not types.ModuleType):
                mine = value is self.root or slot.kind == "member"
                data.append((0, slot, slot.name if mine else f"{unit.label}.{slot.name}"))
        self._names(id(value), unit.globals, data)

    def _names(
        self, unit: int, slots: tuple[Slot, ...], data: deque[tuple[int, Slot, str]]
    ) -> None:
        """Follow what a unit reads by name."""
        edges = self.edges[unit]
        for slot in slots:
            if self._left_out(slot):
                continue
            held = slot.get()
            target = self._target(slot, held)
            if target is not None:
                self._met(slot, target)
                self.reads.append(Read(slot, slot.name, b"", held, None, slot.loose))
                edges.append((slot.short, b"", id(target)))
            elif held is MISSING or isinstance(held, types.ModuleType):
                self.reads.append(Read(slot, slot.name, b"", held, None, slot.loose))
            else:
                data.append((unit, slot, slot.name))

    def _target(self, slot: Slot, held: Any) -> Any:
        """Return the unit that a slot leads to, or None."""
        if isinstance(held, types.ModuleType) and slot.kind in _FOLLOWED and not slot.whole:
            return None
        return direct(held, self.owner)

    def _met(self, slot: Slot, target: Any) -> None:
        self.walk.as_data = not slot.called
        self.walk.encode(target)
        if not slot.called:
            self.walk.documented.setdefault(id(target), target)
        self.walk.as_data = False

    def _read(self, unit: int, slot: Slot, name: str) -> None:
        """Encode one piece of data that a unit reads or holds."""
        if self._left_out(slot):
            return
        value = slot.get()
        if value is MISSING:
            return
        self.walk.start(name)
        self.walk.as_data = _is_data(slot, value, self.owner)
        text = self.walk.top(value)
        self.walk.as_data = False
        place = slot.identity()
        self.used |= {place, _root_place(slot)}
        if unit:
            self.edges[unit].append((slot.short, text, 0))
        if place in self._seen:
            return
        self._seen.add(place)
        moving = self.walk.mutable and direct(value, self.owner) is None
        sampled = sample_of(self.owner, self.own, name, value) if self.walk.big else None
        settled = None
        changing = self.walk.changing and not self.walk.big
        if self.walk.used:
            left = self.walk.left
            settled = Walk(self.owner, name, own=self.own, settled=True, used=left).top(value)
        fixed = not moving and (type(value) not in {str, bytes} or len(value) < _HELD_BYTES)
        loose = slot.loose or _root_place(slot) in self.written
        kept = value if fixed else MISSING
        self.reads.append(
            Read(slot, name, text, kept, sampled, loose, settled, changing, id(value))
        )

    def _document(self) -> bool:
        """Encode the docstrings of units that are not only called; tell whether there were any."""
        new = [one for key, one in self.walk.documented.items() if key not in self._documented]
        for value in new:
            self._documented.add(id(value))
            label = label_of(value)
            text, notes = documents(value, self.owner.places)
            self.walk.start(f"{label}.__doc__")
            self.walk.as_data = True
            name = str(getattr(value, "__qualname__", value.__name__))
            texts = [text_of(name), text_of(text), *map(self.walk.encode, notes)]
            if isinstance(value, types.FunctionType):
                kept = [s for s in attributes_of(value, label) if not self._left_out(s)]
                texts += [text_of(s.short) + self.walk.encode(s.get()) for s in kept]
            texts += [self.walk.encode(one) for one in _classes_named(value, notes, self.owner)]
            for base in value.__mro__[1:] if isinstance(value, type) else ():
                if self.owner.is_project_class(base):
                    self.walk.encode(base)
            self.walk.as_data = False
            self.docs.setdefault(f"{label}.__doc__", []).append(b"".join(texts))
        return bool(new)


def sample_of(owner: Owner, own: Any, name: str, value: object) -> bytes:
    """Encode a big value by sampled blocks."""
    return Walk(owner, name, own=own, sample=True).top(value)


def _name(root: Any) -> str:
    unit = isinstance(root, (types.FunctionType, type, types.ModuleType))
    return label_of(root) if unit else str(getattr(root, "__name__", type(root).__name__))


def _is_data(slot: Slot, held: Any, owner: Owner) -> bool:
    """Tell whether what a slot holds is met as data, or as code that is only called."""
    if slot.kind == "field":
        return False
    return not (slot.called and (direct(held, owner) is not None or isinstance(held, _WRAPPING)))


def _root_place(slot: Slot) -> Place:
    """Return the place whose writing counts for a slot: of a key, that of the dict."""
    if slot.kind == "item":
        return ("global", id(slot.holder), slot.key[0])
    return slot.identity()


def _unwrapped(root: Any) -> list[Any]:
    """Return a function and what it wraps: the step's own parameters are theirs."""
    found: list[Any] = []
    while root is not None and len(found) < _DEEPEST:
        found.append(root)
        state = vars(root) if isinstance(root, types.FunctionType) else {}
        root = state.get("__wrapped__")
    return found


def holds_code(value: Any, depth: int = 3) -> bool:
    """Tell whether a container holds callables: a registry, whose content says what runs."""
    items: list[Any]
    if isinstance(value, dict):
        items = [*dict.values(value), *dict.keys(value)]
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        items = list(value)
    else:
        return False
    for one in items[:_MOST_ITEMS]:
        if isinstance(one, _CALLABLES) or is_step(one):
            return True
        if depth and holds_code(one, depth - 1):
            return True
    return False


def _classes_named(value: Any, notes: list[Any], owner: Owner) -> list[Any]:
    """Return the project's classes that annotations name which are kept as text."""
    module = sys.modules.get(value.__module__) if isinstance(value, type) else None
    space = getattr(value, "__globals__", None) or getattr(module, "__dict__", {})
    names = {
        word
        for one in notes
        for note in one.values()
        if isinstance(note, str)
        for word in _WORD.findall(note)
    }
    found = [space.get(name) for name in sorted(names)]
    return [one for one in found if isinstance(one, type) and owner.is_project_class(one)]


def direct(value: Any, owner: Owner) -> Any:
    """Return the unit that a name stands for; None if it stands for data or installed code."""
    while is_step(value):
        value = value.__wrapped__
    if type(value) is types.FunctionType:
        return value if owner.is_project_function(value) else None
    if isinstance(value, type) and not isinstance(value, types.GenericAlias):
        return value if owner.is_project_class(value) else None
    if type(value) is types.ModuleType and value.__name__ != "__main__":
        return value if owner.is_project_module(value) else None
    return None


def _member(cls: type, name: str) -> Slot:
    return Slot("member", vars(cls), name, f"{label_of(cls)}.{name}", id(cls))


def _written_slot(write: Write, fn: types.FunctionType, unit: Unit) -> Slot | None:
    """Find the place that a write means."""
    if write.scope == "global":
        name = write.root
        module = str(fn.__globals__.get("__name__", "__main__"))
        label = name if module == "__main__" else f"{module}.{name}"
        return Slot("global", fn.__globals__, name, label)
    if write.scope == "cell":
        return next((s for s in unit.slots if s.kind == "cell" and s.name == write.root), None)
    held = next((s for s in unit.slots if "default" in s.kind and s.name == write.root), None)
    if held is not None and isinstance(held.get(), _CONTAINERS):
        return held
    return None


def _changes(write: Write, value: Any) -> bool:
    """Whether calling the method changes the object: by its type, else by how it is called."""
    if isinstance(value, _CONTAINERS) or value is MISSING or value is None:
        return True
    if isinstance(value, (str, bytes, int, float, tuple, frozenset)):
        return False
    return write.certain or write.method in ALWAYS


class Reach:
    """A fingerprint of code, and the means to see whether it still holds."""

    def __init__(
        self,
        owner: Owner,
        root: Any,
        ignore: Ignored,
        *,
        documented: bool = False,
        used: Used = NOTHING_USED,
    ) -> None:
        self._owner = owner
        self._used = used
        self._ignore = ignore
        self._documented = documented
        self._root = reference(root)
        made = _Pass(owner, root, ignore, {}, used).run(root, documented=documented)
        while made.late:
            again = _Pass(owner, root, ignore, made.written, used)
            made = again.run(root, documented=documented)
        self.runs = frozenset(made.runs)
        self.notes = (*made.walk.notes, *sorted(made.written.values()))
        self._labels: dict[str, Any] = {}
        self._seeds: dict[int, bytes] = {}
        self.digest, self.parts = self._combine(made, root)
        self.own, self.captured = _told_apart(made, root)
        units = made.named_units or list(made.walk.units.values())
        self.texts = digest16(b"".join(sorted({digest16(made.unit(one).text) for one in units})))
        self._watch(made)
        contents = tuple(made.contents())
        changing = any(read.changing for read in self._data)
        self._pieces: Pieces | None = None
        self._generators = tuple(made.walk.generators.values())
        self.print = Print(
            self.digest,
            self.parts,
            self.notes,
            0.0,
            self.moved,
            self.shifted,
            self if changing else None,
            contents,
            self.rebound,
            Covered(self._codes, [slot for _, slot in self._names]),
        )

    def _combine(self, made: _Pass, root: Any) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
        """Refine the units' digests by their neighbours', and take them together."""
        units = made.walk.units
        own: dict[int, bytes] = {}
        parts: dict[str, list[bytes]] = {}
        for key, value in units.items():
            made.walk.start("")
            text = made.walk.encode(value)
            own[key] = digest16(text)
            if made.walk.plain:
                self._seeds[key] = text
            unit = made.unit(value)
            label, digest = unit.label, own[key]
            if isinstance(value, types.FunctionType):
                # What a function holds has names, and so parts, of its own.
                label, digest = f"{label}()", digest16(unit.text)
            parts.setdefault(label, []).append(digest)
            self._labels[label] = made.table[key].ref
        digests = own
        for _ in range(2):
            digests = {key: _refined(key, digests, made.edges.get(key, [])) for key in units}
        for read in made.reads:
            if read.text:
                parts.setdefault(read.name, []).append(read.text)
        for name, docs in made.docs.items():
            parts.setdefault(name, []).extend(docs)
        for key in units:
            for name, text in made.table[key].texts:
                parts.setdefault(name, []).append(text)
        target = direct(root, self._owner)
        hasher = blake2b(_VERSION, digest_size=16)
        hasher.update(made.root_text)
        hasher.update(digests.get(id(target), b""))
        for digest in sorted(set(digests.values())):
            hasher.update(digest)
        for digest in sorted(digest16(doc) for docs in made.docs.values() for doc in docs):
            hasher.update(digest)
        named = tuple((name, b"".join(sorted(texts))) for name, texts in sorted(parts.items()))
        return hasher.digest(), named

    def _watch(self, made: _Pass) -> None:
        """Arrange what was read for looking at it again quickly."""
        spaces: dict[int, tuple[Any, list[str], list[Any]]] = {}
        self._data: list[Read] = []
        self._held: list[tuple[Slot, Any]] = []
        self._names: list[tuple[str, Slot]] = []
        for read in made.reads:
            slot = read.slot
            self._names.append((read.name, slot))
            if read.value is MISSING and read.text:
                self._data.append(read)
            elif slot.kind in {"global", "member"}:
                space = spaces.setdefault(id(slot.holder), (slot.holder, [], []))
                space[1].append(slot.key)
                space[2].append(read.value)
            elif read.value is not self._root():
                self._held.append((slot, read.value))
        self._labelled = {read.slot.key: read.name for read in made.reads}
        self._spaces = [(s.get, tuple(n), tuple(v)) for s, n, v in spaces.values()]
        self._codes = [
            (made.table[key].ref, made.table[key].code)
            for key, value in made.walk.units.items()
            if isinstance(value, types.FunctionType)
        ]
        self._sizes = [
            (ref, len(vars(value)), value.__bases__)
            for key, value in made.walk.units.items()
            if isinstance(value, type) and (ref := made.table[key].ref)
        ]
        self._loose = frozenset(read.name for read in made.reads if read.loose)
        self._units = frozenset(made.walk.units)
        self._written = made.written

    def steady(self) -> bool:
        """Whether every name still stands for the very object it stood for."""
        for get, names, values in self._spaces:
            if not all(map(is_, map(get, names, repeat(MISSING)), values)):
                return False
        for ref, code in self._codes:
            fn = ref()
            if fn is None or fn.__code__ is not code:
                return False
        for slot, value in self._held:
            if slot.get() is not value:
                return False
        for ref, size, bases in self._sizes:
            cls = ref()
            if cls is None or len(vars(cls)) != size or cls.__bases__ != bases:
                return False
        return True

    def holds(self) -> bool:
        """Whether the fingerprint is still the code's."""
        return self.steady() and (not self._data or not self._changed(sample=False, used=True))

    def _changed(self, *, sample: bool, used: bool = False) -> list[tuple[str, object]]:
        """Digest the data that can change again; names and objects of what did.

        Args:
            sample: compare what is large by sampled blocks.
            used: compare what changes by being used, too.
        """
        again = self._again()
        found: list[tuple[str, object]] = []
        for read in self._data:
            value = read.slot.get()
            small = sample and read.sampled is not None
            before = read.sampled if small else read.text
            if value is MISSING:
                found.append((read.name, None))
                continue
            try:
                if read.settled is not None and not used:
                    walk = Walk(
                        self._owner, read.name, own=again.own, settled=True, used=self._used
                    )
                    text, before = walk.top(value), read.settled
                elif small:
                    text = sample_of(self._owner, again.own, read.name, value)
                else:
                    again.walk.start(read.name)
                    text = again.walk.top(value)
            except Exception:  # noqa: BLE001 - it could be digested before: it is another now
                text = b""
            if text != before:
                found.append((read.name, value))
        if not found and not again.walk.units.keys() <= self._units:
            found.append((self._data[0].name, self._data[0].slot.get()))
        return found

    def _again(self) -> _Pass:
        """Make a pass that encodes what the code reads once more."""
        again = _Pass(self._owner, None, self._ignore, dict(self._written), self._used)
        again.walk.seeds = self._seeds
        return again

    def pieces(self, *, before: bool) -> Pieces:
        """Return what the code reads taken apart: as it was first of all, or as now."""
        if before and self._pieces is not None:
            return self._pieces
        found = Pieces()
        for read in self._data:
            own = self._again().own
            value = read.slot.get()
            if read.changing:
                found.join(pieces_of(self._owner, read.name, value, self._ignore, own))
        if before:
            self._pieces = found
        return found

    def generators(self) -> tuple[Any, ...]:
        """Return the random generators that the code reads, in the order of the walk."""
        return self._generators

    def digest_without(self, used: Used) -> bytes:
        """Return the digest as it is now, some attributes left out."""
        root = self._root()
        if root is None:
            return self.digest
        documented = self._documented
        return Reach(self._owner, root, self._ignore, documented=documented, used=used).digest

    def moved(self, sample: bool = False) -> tuple[tuple[str, object], ...]:  # noqa: FBT001, FBT002
        """Names and objects of what the code reads that is no longer what it was."""
        found = self._differing(sample=sample)
        return tuple(one for one in found if one[0] not in self._loose) if found else ()

    def rebound(self) -> frozenset[str]:
        """Names that stand for other objects now than they did."""
        found = {read.name for read in self._data if id(read.slot.get()) != read.address}
        for get, names, values in self._spaces:
            labels = self._labelled
            found |= {
                labels.get(name, name)
                for name, value in zip(names, values, strict=True)
                if get(name, MISSING) is not value
            }
        return frozenset(found)

    def shifted(self) -> tuple[str, ...]:
        """Names of inputs that may move, and are no longer what they were."""
        if not self._loose:
            return ()
        return tuple(name for name, _ in self._differing(sample=False) if name in self._loose)

    def _differing(self, *, sample: bool) -> tuple[tuple[str, object], ...]:
        if self.steady():
            return tuple(self._changed(sample=sample)) if self._data else ()
        root = self._root()
        if root is None:
            return ()
        now = Reach(self._owner, root, self._ignore, documented=self._documented, used=self._used)
        if now.digest == self.digest:
            return ()
        before, after = dict(self.parts), dict(now.parts)
        names = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
        return tuple((name, self._object(name, now)) for name in names) or ((_name(root), root),)

    def _object(self, name: str, now: Reach) -> object:
        """Return the object that a part's name stands for now."""
        for held, slot in (*now._names, *self._names):
            if held == name and (value := slot.get()) is not MISSING:
                return value
        ref = now._labels.get(name) or self._labels.get(name)
        return ref() if ref else None


def _told_apart(made: _Pass, root: Any) -> tuple[bytes, bytes]:
    """Digest what a function holds, with its own text and without: global data it names too."""
    edges = made.edges.get(id(direct(root, made.owner)), ())
    named = sorted((n, t) for n, t, target in edges if not target and n not in {"module", "import"})
    data = b"".join(text_of(name) + text for name, text in named)
    cells = [r.text for r in made.reads if r.slot.kind == "cell" and r.slot.holder() is root]
    return digest16(made.root_text + data), digest16(b"".join(sorted(cells)) + data)


def _refined(key: int, digests: dict[int, bytes], edges: list[tuple[str, bytes, int]]) -> bytes:
    """Digest of a unit with those of its neighbours, by the names it has for them."""
    hasher = blake2b(digests[key], digest_size=16)
    for name, text, target in sorted(edges, key=lambda e: (e[0], e[1], digests.get(e[2], b""))):
        hasher.update(text_of(name) + text + (digests.get(target, b"?") if target else b"-"))
    return hasher.digest()
