"""From the names that code reads to the places where what they stand for is found.

Invariant: looks only. A chain is followed through modules as far as it leads; where it ends
at a module, the whole of it counts.
"""

from __future__ import annotations

import ast
import builtins
import os
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Iterator  # noqa: TC003 - as Any below
from typing import TYPE_CHECKING, Any, NamedTuple

from nbdurable.fingerprint.builtin import is_step
from nbdurable.fingerprint.prints import state_of
from nbdurable.fingerprint.reads import BARE, Imported, Link, Use, absolute
from nbdurable.fingerprint.source import syntax_of
from nbdurable.fingerprint.strings import CODE, Named, looks, names_in, run_by
from nbdurable.fingerprint.syntax import DEFS
from nbdurable.fingerprint.texts import Source, Texts, source_of
from nbdurable.fingerprint.writes import writes_of

if TYPE_CHECKING:
    from nbdurable.fingerprint.places import Places

MISSING: Any = type("Missing", (), {"__repr__": lambda _: "<missing>"})()

MACHINERY = frozenset(
    {"__builtins__", "__file__", "__spec__", "__loader__", "__cached__", "__package__", "__path__",
     "__debug__", "__build_class__", "__import__", "__annotations__", "__warningregistry__",
     "__conditional_annotations__"}
)  # fmt: skip
"""Names in a module's namespace that Python put there."""

_SHELL = frozenset({"In", "Out", "exit", "quit", "get_ipython", "open"})
_STEPS_OWN = frozenset({"go", "map", "starmap", "with_options"})
_NO_DATA = frozenset({"__name__", "__qualname__", "__module__", "__wrapped__", "__class__",
                      "__call__", "cache_clear", "cache_info"})  # fmt: skip
_MOST_STRINGS = 500


class Slot(NamedTuple):
    """Where a value that code depends on is found."""

    kind: str  # "global", "item", "attribute", "cell", "default", "kwdefault", "member", ...
    holder: Any  # a namespace; for what a function holds, a weak reference to it
    key: Any
    name: str
    owner: int = 0  # the class's identity, for a member: its namespace is made anew on each look
    called: bool = True  # whether it is only called, wherever the code reads it
    whole: bool = False  # whether a module counts with all that it holds
    loose: bool = False  # whether it may move while the step runs

    def get(self) -> Any:
        """Return the value that is there now, or MISSING."""
        if self.kind in {"global", "member"}:
            return self.holder.get(self.key, MISSING)
        if self.kind == "item":
            return _item(self.holder, self.key)
        owner = self.holder()
        if owner is None:
            return MISSING
        try:
            return HELD[self.kind](owner, self.key)
        except (LookupError, ValueError, AttributeError, TypeError):
            return MISSING

    def identity(self) -> tuple[str, int, Any]:
        """Name the place itself, the same for every unit that looks there."""
        if self.kind == "cell":
            owner = self.holder()
            return ("cell", id(owner.__closure__[self.key]) if owner else 0, None)
        if self.kind in {"global", "member"}:
            return ("global", self.owner or id(self.holder), self.key)
        if self.kind == "item":
            return ("item", id(self.holder), self.key)
        return (self.kind, id(self.holder()), self.key)

    @property
    def short(self) -> str:
        """The name without its module or class: what digests know it by."""
        if self.kind == "item":
            return "".join([str(self.key[0]), *[f"[{key!r}]" for key in self.key[1:]]])
        return self.name.rpartition(".")[2]


def _item(space: Any, keys: tuple[Any, ...]) -> Any:
    value = space.get(keys[0], MISSING)
    for key in keys[1:]:
        if type(value) is not dict:
            return MISSING
        value = value.get(key, MISSING)
    return value


HELD: dict[str, Callable[[Any, Any], Any]] = {
    "cell": lambda f, k: f.__closure__[k].cell_contents,
    "default": lambda f, k: f.__defaults__[k],
    "kwdefault": lambda f, k: f.__kwdefaults__[k],
    "wrapped": lambda f, _: f.__dict__["__wrapped__"],
    "attribute": lambda f, k: vars(f)[k],
    "named": getattr,
    "base": lambda c, k: c.__bases__[k],
    "metaclass": lambda c, _: type(c),
}


def reference(value: Any) -> Callable[[], Any]:
    """Refer to an object without keeping it, if it can be done."""
    try:
        return weakref.ref(value)
    except TypeError:
        return lambda: value


def in_module(module: str, name: str) -> str:
    """Prefix a name with its module, unless that is the notebook itself."""
    return name if module in {"__main__", "None"} else f"{module}.{name}"


class Following:
    """One walk from a function's names; what it found so far."""

    def __init__(self, space: dict[str, Any], places: Places) -> None:
        self._home = space
        self._places = places
        self._slots: dict[tuple[Any, ...], Slot] = {}
        self.external: set[str] = set()
        self.texts: Texts | None = None
        self.stale: set[str] = set()

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The places that were found."""
        return tuple(self._slots.values())

    def names(self, names: Iterable[tuple[str, frozenset[Use]]]) -> None:
        """Follow global names."""
        for name, uses in names:
            if name not in MACHINERY:
                for use in uses:
                    self.use(self._home, name, use)

    def held(self, value: types.ModuleType, uses: frozenset[Use]) -> bool:
        """Follow from a module that a closure holds; tell whether the whole of it counts."""
        ours = self._places.module(value)
        if not ours:
            self.external.add(f"{value.__name__}")
        for use in uses:
            if not use.links or use.links[0][0] == "[":
                return ours
        for use in uses:
            if ours:
                self.use(vars(value), str(use.links[0][1]), Use(use.links[1:], use.called))
        return False

    def _add(self, slot: Slot) -> None:
        key = slot.identity()
        known = self._slots.get(key)
        if known is not None:
            slot = known._replace(
                called=known.called and slot.called,
                whole=known.whole or slot.whole,
                loose=known.loose and slot.loose,
            )
        self._slots[key] = slot

    def use(self, space: dict[str, Any], name: str, use: Use, *, loose: bool = False) -> None:
        """Walk from a name through modules to the first thing that is not one."""
        links = use.links
        while True:
            label = in_module(str(space.get("__name__", "__main__")), name)
            slot = Slot("global", space, name, label, loose=loose)
            value = space.get(name, MISSING)
            if value is MISSING and self._is_patched(name):
                space, value = vars(builtins), getattr(builtins, name)
                slot = Slot("global", space, name, name)
            if not isinstance(value, types.ModuleType):
                self._end(slot, value, Use(links, use.called))
                return
            ours = self._places.module(value)
            if not ours:
                self.external.add(f"{name}={value.__name__}")
            if not links or links[0][0] == "[":
                self._add(slot._replace(whole=ours))
                return
            attribute = _attribute(links[0])
            inner = vars(value).get(attribute, MISSING)
            hidden = inner is MISSING and "__getattr__" in vars(value)
            if ours and (hidden or attribute == "__dict__"):
                self._add(slot._replace(whole=True))
                return
            self._add(slot)
            if not ours and not self._is_followed(inner):
                return
            if attribute in MACHINERY:
                return
            space, name, links = vars(value), attribute, links[1:]

    def _is_patched(self, name: str) -> bool:
        """Tell whether a builtin was exchanged for the project's own."""
        value = vars(builtins).get(name)
        return type(value) is types.FunctionType and self._places.function(value)

    def _is_followed(self, value: Any) -> bool:
        """Tell whether what an installed module holds leads to the project."""
        if isinstance(value, types.ModuleType) or is_step(value):
            return True
        if type(value) is types.FunctionType:
            return self._places.function(value)
        cls = value if isinstance(value, type) else type(value)
        return self._places.klass(cls)

    def _end(self, slot: Slot, value: Any, use: Use) -> None:
        """Add the slot of what is no module, as far as its use needs it."""
        links = use.links
        if type(value) is type(os.environ):
            return  # a setting
        if type(value) is dict and links and links[0][0] != ".":
            keys = [slot.key]
            for kind, key in links:
                if kind == "." or type(value) is not dict:
                    break
                keys.append(key)
                value = value.get(key, MISSING)
            rest = Use(links[len(keys) - 1 :], use.called)
            only = rest.called and not rest.links
            item = Slot("item", slot.holder, tuple(keys), slot.name, called=only, loose=slot.loose)
            if isinstance(value, types.ModuleType):
                item = item._replace(whole=self.held(value, frozenset({rest})))
            self._add(item)
            return
        called = use.called and not links
        if links and (is_step(value) or isinstance(value, (types.FunctionType, type))):
            called = self._by_attribute(slot, value, _attribute(links[0]))
        self._add(slot if called else slot._replace(called=False))

    def _by_attribute(self, slot: Slot, value: Any, attribute: str) -> bool:
        """Take in an attribute of a function, step or class; tell whether it is only called."""
        if isinstance(value, type):
            owner = next((c for c in value.__mro__ if attribute in vars(c)), object)
            return self._places.klass(owner) and not attribute.startswith("__")
        if attribute in {"__name__", "__qualname__"} and isinstance(value, types.FunctionType):
            label = f"{slot.name}.{attribute}"
            self._add(Slot("named", reference(value), attribute, label))
        if attribute in _NO_DATA or (is_step(value) and attribute in _STEPS_OWN):
            return True
        label = f"{slot.name}.{attribute}"
        while attribute not in vars(value) and is_step(value):
            value = value.__wrapped__
        if attribute in vars(value) or not attribute.startswith("__"):
            self._add(Slot("attribute", reference(value), attribute, label))
            return True
        return False

    def attributes(self, slot: Slot, value: Any, uses: Iterable[Use]) -> None:
        """Take in the attributes of a function or step that a closure holds."""
        if is_step(value) or isinstance(value, types.FunctionType):
            for use in uses:
                if use.links:
                    self._by_attribute(slot, value, _attribute(use.links[0]))

    def imports(self, imported: Iterable[Imported], package: str) -> None:
        """Follow imports in a body: by the text of the modules, which nobody needs to load."""
        for one in imported:
            name = absolute(one.module, one.level, package)
            loaded = sys.modules.get(name) if name else None
            source = source_of(name) if name else None
            if not isinstance(loaded, types.ModuleType) or not self._places.module(loaded):
                loaded = None
            if loaded is not None and (source is None or not self._agrees(loaded, source)):
                # What runs is in memory, and its file says something else, or there is none.
                self.stale |= {loaded.__name__} if source is not None else set()
                self._loaded(loaded, one.uses or frozenset({BARE}))
                continue
            if self.texts is None:
                self.texts = Texts(self._places)
            self.texts.follow(one.module, one.level, package, one.uses)

    def anywhere(self, beginnings: Iterable[str], package: str, folder: str) -> None:
        """Take in all modules that a computed import may mean."""
        for beginning in beginnings:
            if self.texts is None:
                self.texts = Texts(self._places)
            self.texts.anywhere(beginning, package, folder)

    def _loaded(self, module: types.ModuleType, uses: frozenset[Use]) -> None:
        whole = self.held(module, uses)
        if whole:
            space = sys.modules
            self._add(Slot("global", space, module.__name__, module.__name__, whole=True))

    def _agrees(self, module: types.ModuleType, source: Source) -> bool:
        """Tell whether a loaded module is what its file says, as far as looking can tell."""
        space = vars(module)
        written: set[str] = set()
        for one in source.statements:
            if isinstance(one.node, DEFS):
                fn = space.get(one.node.name, MISSING)
                if fn is MISSING:
                    return False
                if type(fn) is types.FunctionType and fn.__module__ == module.__name__:
                    known = syntax_of(fn.__code__, fn.__globals__)
                    if known is None:
                        return False
                    written |= {w.root for w in writes_of(one.node, fn.__code__)}
            elif isinstance(one.node, ast.ClassDef):
                cls = space.get(one.node.name, MISSING)
                if cls is MISSING or not _methods_agree(cls, module.__name__):
                    return False
        return all(
            _as_written(one.node, space, written | {n for n, b in source.binders.items() if b[1:]})
            for one in source.statements
        )

    def strings(self, named: Iterable[Named]) -> None:
        """Follow names in strings, where there are globals of these names that they can mean."""
        for name, kind in named:
            value = self._home.get(name, MISSING)
            if (
                value is MISSING
                or name in MACHINERY
                or hasattr(type(value), "__nbdurable_identity__")
            ):
                continue
            code = isinstance(value, (types.FunctionType, type, types.ModuleType)) or is_step(value)
            if code and kind == CODE:
                self.use(self._home, name, Use((), called=not isinstance(value, types.ModuleType)))
            elif not code and looks(value, kind):
                self.use(self._home, name, BARE, loose=True)

    def run(self, kinds: Iterable[str], values: Iterable[Any]) -> None:
        """Follow names in the strings that code may run: those in the data that it reads."""
        for kind in kinds:
            for text in texts_in(values):
                self.strings([*names_in(text), *run_by(kind, text)])
            if kind == "space":
                every = [n for n in self._home if not n.startswith("_") and n not in _SHELL]
                self.strings(Named(name, CODE) for name in sorted(every))


def named_by(fn: Any, runs: Iterable[str], values: list[Any]) -> list[tuple[str, Any]]:
    """Pair names with the globals that strings among arguments name, where they are run."""
    space = getattr(fn, "__globals__", None)
    if space is None:
        return []
    found: dict[str, Any] = {}
    for text in texts_in(values):
        for kind in runs:
            for name, meant in (*names_in(text), *run_by(kind, text)):
                value = space.get(name, MISSING)
                if value is MISSING or _is_handle(value):
                    continue
                if meant == CODE or (looks(value, meant) and not callable(value)):
                    found[f"`{name}`"] = value
    return list(found.items())


def texts_in(values: Iterable[Any]) -> Iterator[str]:
    """Yield the strings in values and in the containers among them; a bounded number."""
    todo = [*values]
    for _ in range(_MOST_STRINGS):
        if not todo:
            return
        value = todo.pop()
        if type(value) is str:
            yield value
        elif type(value) in {list, tuple, set, frozenset}:
            todo += [*value][:_MOST_STRINGS]
        elif type(value) is dict or isinstance(value, type):
            held = value if type(value) is dict else vars(value)
            todo += [*held.values()][:_MOST_STRINGS]
        elif value is not MISSING and not isinstance(value, types.ModuleType):
            todo += [*state_of(value).values()][:_MOST_STRINGS]


def _is_handle(value: Any) -> bool:
    return hasattr(type(value), "__nbdurable_identity__")


def _attribute(link: Link) -> str:
    return "get" if link[0] == "get" else str(link[1])


def _methods_agree(cls: Any, module: str) -> bool:
    if not isinstance(cls, type) or cls.__module__ != module:
        return True
    for value in vars(cls).values():
        fn = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        fn = fn.fget if isinstance(fn, property) else fn
        if type(fn) is types.FunctionType and fn.__module__ == module:
            path = fn.__code__.co_filename
            if not path.startswith("<") and syntax_of(fn.__code__, fn.__globals__) is None:
                return False
    return True


def _as_written(node: ast.stmt, space: dict[str, Any], written: set[str]) -> bool:
    """Tell whether a name that a statement binds to a literal still has that value."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target, value = node.targets[0], node.value
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        target, value = node.target, node.value
    else:
        return True
    if not isinstance(target, ast.Name) or target.id in written:
        return True
    try:
        literal = ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return True
    return _equal(literal, space.get(target.id, MISSING))


def _equal(literal: Any, held: Any) -> bool:
    """Compare a literal with what is held, without calling anybody's code."""
    if type(literal) is not type(held):
        return False
    if type(literal) is dict:
        return list(literal) == list(held) and all(_equal(v, held[k]) for k, v in literal.items())
    if type(literal) in {list, tuple}:
        return len(literal) == len(held) and all(map(_equal, literal, held))
    return bool(literal == held) or repr(literal) == repr(held)
