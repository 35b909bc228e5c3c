"""Functions and modules of the project, each as a text and the slots that fill it.

Invariant: a unit says what runs now (code in memory), and each slot says where to look for the
value that it had, so that both can be looked at again.
"""

from __future__ import annotations

import os
import types
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from nbdurable.fingerprint.builtin import is_step
from nbdurable.fingerprint.contents import Touched, touched_by
from nbdurable.fingerprint.following import HELD, MACHINERY, MISSING, Following, Slot, in_module
from nbdurable.fingerprint.places import Places  # noqa: TC001 - a NamedTuple's fields are read at run time
from nbdurable.fingerprint.reads import BARE, Imported, Reads, Use, reads_of
from nbdurable.fingerprint.source import instructions, syntax_of
from nbdurable.fingerprint.syntax import decorators, locals_of, normalised
from nbdurable.fingerprint.texts import parts_of
from nbdurable.fingerprint.values import text_of
from nbdurable.fingerprint.writes import Write, writes_of

if TYPE_CHECKING:
    from collections.abc import Iterable


class Unit(NamedTuple):
    """One function, class or module of the project."""

    ref: weakref.ref[Any]
    label: str
    text: bytes
    code: types.CodeType | None
    slots: tuple[Slot, ...]  # what it holds itself
    globals: tuple[Slot, ...]  # what it reads by name
    external: tuple[str, ...]  # modules' real names behind the names it uses
    sourced: bool
    writes: frozenset[Write]
    texts: tuple[tuple[str, bytes], ...] = ()  # what its own imports lead to, by label
    decorated: tuple[Slot, ...] = ()  # what its decorators read
    runs: frozenset[str] = frozenset()  # kinds of strings that it runs
    touched: Touched | None = None  # what it does with names, where it writes any
    space: Any = None  # its module's namespace


class _Text(NamedTuple):
    """What is known of a code object for good."""

    node: Any
    decorators: frozenset[str]
    reads: Reads
    writes: frozenset[Write]
    digests: dict[frozenset[str], bytes]
    touched: Touched | None


_TEXTS: dict[int, tuple[weakref.ref[types.CodeType], _Text]] = {}


def text_of_code(fn: types.FunctionType) -> _Text:
    """Read a function's code once per process: what was loaded stays what it was."""
    code = fn.__code__
    key = id(code)
    known = _TEXTS.get(key)
    if known is not None and known[0]() is code:
        return known[1]
    node = syntax_of(code, fn.__globals__)
    names = frozenset(decorators(node)) if node is not None else frozenset()
    reads, writes = reads_of(node, code), writes_of(node, code)
    touched = None
    if node is not None and any(write.scope == "global" for write in writes):
        touched = touched_by(node)
    found = _Text(node, names, reads, writes, {}, touched)
    _TEXTS[key] = (weakref.ref(code, lambda _: _TEXTS.pop(key, None)), found)
    return found


def written_parameters(fn: types.FunctionType) -> frozenset[str]:
    """Names of the parameters whose objects the function changes."""
    return frozenset(w.root for w in text_of_code(fn).writes if w.scope == "param")


def label_of(value: Any) -> str:
    """Name a function, class or module as a user would."""
    if isinstance(value, types.ModuleType):
        return value.__name__
    module = value.__module__ if isinstance(value, type) else value.__globals__.get("__name__")
    name = str(getattr(value, "__qualname__", "?"))
    if isinstance(value, types.FunctionType):
        name = value.__code__.co_qualname
    return in_module(str(module or "__main__"), name.replace("<locals>.", ""))


def function_unit(fn: types.FunctionType, places: Places) -> Unit:
    """Describe a function."""
    text = text_of_code(fn)
    ref = weakref.ref(fn)
    reads = text.reads
    following = Following(fn.__globals__, places)
    slots = _held_by(fn, ref, reads, following)
    following.names(reads.names)
    following.strings(reads.strings)
    package = str(fn.__globals__.get("__package__") or "")
    if not package and "." in (name := str(fn.__globals__.get("__name__", ""))):
        package = name.rpartition(".")[0]
    following.imports(reads.imported, package)
    if reads.anywhere:
        path = str(fn.__globals__.get("__file__") or "")
        following.anywhere(reads.anywhere, package, os.path.dirname(path) or os.getcwd())  # noqa: PTH109, PTH120
    if reads.runs:
        values = [slot.get() for slot in (*slots, *following.slots)]
        following.run(reads.runs, values)
    found = following.slots
    if not _READING.isdisjoint(reads.attributes) or not _READING.isdisjoint(dict(reads.names)):
        found = tuple(slot._replace(called=False) for slot in found)
        slots = [slot._replace(called=False) if slot.kind == "cell" else slot for slot in slots]
    if "__subclasses__" in reads.attributes:
        held = [slot.get() for slot in found]
        slots += [
            Slot("field", weakref.ref(cls), "__subclasses__", f"{cls.__name__}.__subclasses__")
            for cls in held
            if isinstance(cls, type) and places.klass(cls)
        ]
    patched = places.patched.names(fn.__globals__)
    slots += [
        Slot("member", vars(cls), name, f"{cls.__name__}.{name}", id(cls))
        for name in sorted(patched.keys() & reads.attributes)
        for cls in patched[name]
    ]
    return Unit(
        ref,
        label_of(fn),
        _text_without_ours(fn, text),
        fn.__code__,
        tuple(slots),
        found,
        tuple(sorted(following.external)),
        text.node is not None and not following.stale,
        text.writes,
        tuple(sorted(following.texts.found().items())) if following.texts is not None else (),
        _decorated(fn, text, places),
        reads.runs,
        text.touched,
        fn.__globals__,
    )


_READING = frozenset(
    {"__doc__", "__annotations__", "__signature__", "getdoc", "signature", "get_type_hints",
     "get_annotations", "getsource", "getsourcelines", "getfullargspec", "getmembers",
     "model_json_schema", "inspect"}
)  # fmt: skip
"""Names that code looks at functions' docstrings and annotations by."""


def _text_without_ours(fn: types.FunctionType, text: _Text) -> bytes:
    """Return the function's text, nbdurable's own decorators left out."""
    ours = frozenset(d for d in text.decorators if _is_ours(d, fn))
    digest = text.digests.get(ours)
    if digest is None:
        plain = instructions(fn.__code__)
        if text.node is not None:
            named = text.reads.strings or text.reads.runs
            renamed = (
                frozenset[str]() if named else locals_of(text.node, fn.__code__, text.reads.outer)
            )
            plain = normalised(text.node, ours, renamed, text.reads.documented)
        digest = text.digests[ours] = text_of(fn.__code__.co_name) + plain
    return digest


def _held_by(
    fn: types.FunctionType, ref: weakref.ref[Any], reads: Reads, following: Following
) -> list[Slot]:
    """Return the places of a function's defaults, closure values and what it wraps."""
    names = fn.__code__.co_varnames
    count = fn.__code__.co_argcount
    slots = [
        Slot("default", ref, at, names[count - len(fn.__defaults__ or ()) + at], called=False)
        for at in range(len(fn.__defaults__ or ()))
    ]
    slots += [
        Slot("kwdefault", ref, name, name, called=False) for name in sorted(fn.__kwdefaults__ or ())
    ]
    uses = dict(reads.names)
    for at, name in enumerate(fn.__code__.co_freevars):
        slot = Slot("cell", ref, at, name)
        value = slot.get()
        every = uses.get(name, frozenset({BARE}))
        if isinstance(value, types.ModuleType):
            slot = slot._replace(whole=following.held(value, every))
        else:
            called = all(use.called and not use.links for use in every)
            following.attributes(slot, value, every)
            slot = slot._replace(called=called)
        slots.append(slot)
    if "__wrapped__" in fn.__dict__:
        slots.append(Slot("wrapped", ref, None, "__wrapped__"))
    return slots


def _decorated(fn: types.FunctionType, text: _Text, places: Places) -> tuple[Slot, ...]:
    """Return the places of what a function's decorators read, nbdurable's own left out."""
    if not text.reads.decorated:
        return ()
    following = Following(fn.__globals__, places)
    for dotted, names in text.reads.decorated:
        if not _is_ours(dotted, fn):
            following.names(names)
    return following.slots


def _is_own(value: Any) -> bool:
    module = str(getattr(value, "__module__", None) or getattr(value, "__name__", ""))
    return module.partition(".")[0] == __name__.partition(".")[0]


def _is_ours(dotted: str, fn: types.FunctionType) -> bool:
    """Whether a decorator is nbdurable's own, whose options are in no fingerprint."""
    root, *rest = dotted.split(".")
    value = fn.__globals__.get(root, MISSING)
    if value is MISSING and root in fn.__code__.co_freevars:
        value = HELD["cell"](fn, fn.__code__.co_freevars.index(root))
    for name in rest:
        if is_step(value):
            break
        value = vars(value).get(name, MISSING) if hasattr(value, "__dict__") else MISSING
    return value is not MISSING and (is_step(value) or _is_own(value))


def module_unit(module: types.ModuleType, places: Places) -> Unit:
    """Describe a module by all that it holds: what part of it is used is not known."""
    following = Following(vars(module), places)
    bare: Iterable[tuple[str, frozenset[Use]]] = [
        (name, frozenset({BARE}))
        for name, value in sorted(vars(module).items())
        if name not in MACHINERY and not _is_part(module, name, value)
    ]
    following.names(bare)
    # Parts of a package come and go as they are imported: they count by their texts.
    parts = [Imported(name, 0, frozenset()) for name in parts_of(module)]
    following.imports(parts, module.__name__)
    return Unit(
        weakref.ref(module),
        module.__name__,
        text_of(module.__name__),
        None,
        (),
        following.slots,
        tuple(sorted(following.external)),
        sourced=not following.stale,
        writes=frozenset(),
        texts=tuple(sorted(following.texts.found().items())) if following.texts else (),
    )


def _is_part(package: types.ModuleType, name: str, value: Any) -> bool:
    return isinstance(value, types.ModuleType) and value.__name__ == f"{package.__name__}.{name}"
