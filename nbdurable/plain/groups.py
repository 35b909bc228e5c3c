"""Names of the notebook in groups that share what can change, and one digest for each group.

Invariant: two names are in different groups only if no change through one can be seen through
the other. A mark is equal in every process for equal contents and equal links, and differs
otherwise; what nobody can compare raises.
"""

from __future__ import annotations

import re
import sys
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from nbdurable.errors import DurableError
from nbdurable.fingerprint import Fingerprinter
from nbdurable.fingerprint.prints import digest16
from nbdurable.fingerprint.source import instructions
from nbdurable.fingerprint.values import Walk, sealed, sequence, text_of

from .definitions import (
    class_state,
    has_state,
    is_definition,
    is_module,
    is_own,
    module_state,
)
from .figures import version_of
from .libraries import figure_of
from .links import Links
from .looking import STILL
from .memory import Memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .memory import Extent

T = TypeVar("T")

_SHELLS = re.compile(r"__\w+__|_+|_i+|_i?\d+|_[ido]h|_exit_code|__pydevd\w*")
_SHELL = frozenset({"In", "Out", "exit", "quit", "get_ipython", "open"})
_FOREVER = (
    types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType, types.FrameType,
)  # fmt: skip
_LONGEST = 64
_PATCHES = frozenset({("unittest.mock", "_patch"), ("_pytest.monkeypatch", "MonkeyPatch")})
"""Classes whose instances change libraries, and change them back."""

_owner = Fingerprinter()


class NotComparable(Exception):  # noqa: N818 - it says what a value is
    """A value has no state that another process could compare; the text names its path."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What a group is: its content and the links in it."""

    digest: bytes

    def hex(self) -> str:
        """Return the digest as text."""
        return self.digest.hex()


def is_users(name: str) -> bool:
    """Tell whether a name of the namespace is the user's, and not the shell's or Python's."""
    if name[:1] == "_":
        return _SHELLS.fullmatch(name) is None
    return name not in _SHELL


def reach(
    namespace: Mapping[str, object], names: Iterable[str], known: Known | None = None
) -> frozenset[str]:
    """Return all names through which a change made through one of ``names`` can be seen.

    They are the groups of ``names``, and those of the notebook's own classes and functions
    that keep state and are used in them (the class of an instance, a function in a list):
    a method may change its class. The shell's names (``Out``, ``_``) are no part of it.
    A name that isn't there is returned and leads nowhere.

    Args:
        namespace: The notebook's.
        names: What a cell reads.
        known: What earlier calls have found out; see there.
    """
    known = Known() if known is None else known
    asked = frozenset(names)
    known.look(namespace, asked)
    group_of = known.groups()
    reached: set[str] = set()
    todo = list(asked)
    while todo:
        name = todo.pop()
        if name not in reached:
            group = group_of.get(name) or (name,)
            reached.update(group)
            for one in group:
                todo += known.used_by(one)
    known.forget(reached)
    return frozenset(reached)


def partition(namespace: Mapping[str, object], names: Iterable[str]) -> list[frozenset[str]]:
    """Return names as groups that share nothing with each other, in the order of the names.

    Only ``names`` are looked at: those that share with others in the namespace are not
    joined by that. Names that aren't there are left out.
    """
    wanted = sorted(name for name in set(names) if name in namespace)
    found = Known()
    found.look(namespace, frozenset(wanted), others=False)
    group_of = found.groups()
    return list(dict.fromkeys(frozenset(group_of.get(name) or (name,)) for name in wanted))


class _Entry(NamedTuple):
    """What one name leads to: the keys of objects met first through it, pieces of memory."""

    value: object
    keys: tuple[int, ...]
    extents: tuple[Extent, ...]
    bases: tuple[tuple[int, int], ...]
    uses: tuple[Any, ...]


class Known:
    """What the names of one namespace lead to, kept from call to call of `reach`.

    A name is looked into again after it was reached or bound anew, since only a cell that
    reaches a name can change what it leads to. Where other code may have run (threads,
    ``exec``, callbacks), say `clear`. Values stay alive until the next call.
    """

    def __init__(self) -> None:
        self._links: Links | None = None
        self._entries: dict[str, _Entry] = {}
        self._owners: dict[int, str] = {}
        self._beside: dict[str, set[str]] = {}  # names that met an object of each other's

    def clear(self) -> None:
        """Forget everything."""
        self._links = None
        self._entries.clear()
        self._owners.clear()
        self._beside.clear()

    def forget(self, names: Iterable[str]) -> None:
        """Forget names and all that share an object with them."""
        todo = [name for name in names if name in self._entries or name in self._beside]
        links = self._links
        while todo:
            name = todo.pop()
            todo += self._beside.pop(name, ())
            entry = self._entries.pop(name, None)
            if entry is not None and links is not None:
                for key in entry.keys:
                    del self._owners[links.met.pop(key)]

    def look(
        self, namespace: Mapping[str, object], wanted: frozenset[str], *, others: bool = True
    ) -> None:
        """Look into the names that are not known: ``wanted``, and others of the user's."""
        links = self._links
        if links is None or links.space is not namespace:
            self.clear()
            links = self._links = Links(namespace)
        entries = self._entries
        moved = [n for n, entry in entries.items() if namespace.get(n, _owner) is not entry.value]
        self.forget(moved)
        for name, value in (
            [*namespace.items()] if others else [(n, namespace[n]) for n in sorted(wanted)]
        ):
            if name in entries or (type(value) in STILL and not is_module(value)):
                continue
            if name in wanted or is_users(name):
                self._meet(links, name, value)

    def _meet(self, links: Links, name: str, value: object) -> None:
        links.follow(value)
        owners = self._owners
        first = links.count - len(links.fresh)
        for number in range(first, links.count):
            owners[number] = name
        for _, number in links.again:
            other = owners[number]
            if other != name:
                self._beside.setdefault(name, set()).add(other)
                self._beside.setdefault(other, set()).add(name)
        extents, uses = tuple(links.memory.extents), tuple(links.uses.items())
        self._entries[name] = _Entry(value, tuple(links.fresh), extents, tuple(links.bases), uses)
        links.start()

    def groups(self) -> dict[str, set[str]]:
        """Return the groups by each of their names; a name that isn't there is alone."""
        found: dict[str, set[str]] = {}

        def join(one: str, other: str) -> None:
            mine, others = found.setdefault(one, {one}), found.setdefault(other, {other})
            if mine is not others:
                mine |= others
                for name in others:
                    found[name] = mine

        for name, beside in self._beside.items():
            for other in beside:
                join(name, other)
        met = self._links.met if self._links is not None else {}
        for entry in self._entries.values():
            for key, number in entry.bases:
                if key in met:
                    join(self._owners[number], self._owners[met[key]])
        memory = Memory()
        memory.extents = [one for entry in self._entries.values() for one in entry.extents]
        for together in memory.shared():
            first = self._owners[together[0].number]
            for extent in together[1:]:
                join(first, self._owners[extent.number])
        return found

    def used_by(self, name: str) -> list[str]:
        """Return the names of definitions that keep state and are used in what a name leads to."""
        entry = self._entries.get(name)
        return [one for one, used in entry.uses if has_state(used)] if entry is not None else []


def mark(namespace: Mapping[str, object], group: Iterable[str]) -> Mark:
    """Return a digest of the content of a group of names and of the links in it.

    A name that isn't there counts as absent. Figures count by their version: whether
    something was drawn into them (`nbdurable.plain.figures`).

    Raises:
        NotComparable: Something has no state that another process could compare.
    """
    links = Links(namespace, ordered=True)
    texts: list[bytes] = []
    for name in sorted(group):
        texts.append(text_of(name))
        if name not in namespace:
            texts.append(b"-")
            continue
        value = namespace[name]
        try:
            texts.append(_Content(name, namespace).top_of(value))
            links.follow(value)
        except NotComparable:
            raise
        except (DurableError, RecursionError, Exception) as error:
            raise _refused(name, value, error) from error
    based = [(number, links.met[key]) for key, number in links.bases if key in links.met]
    texts.append(b"%r%r%r" % (links.again, links.details, based))
    for number, together in enumerate(links.memory.shared()):
        low = min(one.low for one in together)
        texts += [b"%x:%x:%x;" % (number, one.number, one.low - low) for one in together]
    return Mark(digest16(b"".join(texts)))


def _refused(name: str, value: object, error: Exception) -> NotComparable:
    why = (
        "it is nested too deeply"
        if isinstance(error, RecursionError)
        else f"{type(error).__name__}: {error}"
    )
    return NotComparable(f"`{name}` ({kind_of(value)}): {why}")


def kind_of(value: object) -> str:
    """Return what a message calls the type of a value."""
    cls = type(value)
    return (
        cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    )


class _Content(Walk):
    """A walk over what one name's value is, links aside."""

    def __init__(self, name: str, namespace: Mapping[str, Any]) -> None:
        super().__init__(_owner, name, own=self._unit)
        self._space = namespace
        self._draws = "matplotlib.figure" in sys.modules

    def top_of(self, value: Any) -> bytes:
        """Return the encoding of the value itself: of a definition, with all that it keeps."""
        if not is_definition(self._space, value):
            return self.top(value)
        if type(value) is types.ModuleType:
            return self._module(value)
        text = self._class(value) if issubclass(type(value), type) else self._function(value)
        return sealed(text, _LONGEST)

    def node(self, value: T, body: Callable[[Walk, T], bytes]) -> bytes:
        """Encode what other values may share, but for what is live or drawn."""
        if self._draws and type(value).__module__.startswith("matplotlib."):
            figure = figure_of(value)
            if figure is not None:
                return b"F" + text_of(type(value).__qualname__) + text_of(version_of(figure))
        if is_live(value):
            self._refuse(value)
        return super().node(value, body)

    def opaque(self, value: object, reason: str = "") -> bytes:
        """Refuse what has no state that another process could compare."""
        return self._refuse(value, reason)

    def _refuse(self, value: object, reason: str = "") -> bytes:
        what = f"{kind_of(value)}: {reason}" if reason else kind_of(value)
        raise NotComparable(f"`{'.'.join(self.path)}` ({what})")

    def _unit(self, _: Walk, value: Any) -> bytes:
        """Encode a function or class that is met in something: its own, by its name."""
        if isinstance(value, types.ModuleType):
            if sys.modules.get(value.__name__) is not value:
                self._refuse(value, "a module that was not imported")
            return b"m" + text_of(value.__name__)
        if is_own(self._space, value):
            return b"n" + text_of(value.__qualname__)
        return self._class(value) if isinstance(value, type) else self._function(value)

    def _module(self, module: types.ModuleType) -> bytes:
        """Encode the data of a module of the project, as far as it can be compared."""
        texts = [b"m" + text_of(module.__name__)]
        for name, value in sorted(module_state(module).items()):
            text = text_alone(self._space, f"{module.__name__}.{name}", value)
            texts += [text_of(name), text] if text is not None else ()
        return sealed(b"".join(texts), _LONGEST)

    def _class(self, cls: type) -> bytes:
        functions = [
            getattr(one, "__func__", getattr(one, "fget", one))
            for _, one in sorted(vars(cls).items())
        ]
        codes = [
            text_of(one.__qualname__) + instructions(one.__code__)
            for one in functions
            if isinstance(one, types.FunctionType)
        ]
        bases = [f"{one.__module__}.{one.__qualname__}" for one in cls.__bases__]
        head = b"k" + text_of(cls.__qualname__) + text_of(",".join(bases))
        return (
            head + digest16(b"".join(codes)) + self.encode(dict(sorted(class_state(cls).items())))
        )

    def _function(self, function: types.FunctionType) -> bytes:
        cells = [one.cell_contents for one in function.__closure__ or () if _is_full(one)]
        kept = (function.__defaults__, function.__kwdefaults__, dict(vars(function)), cells)
        head = b"l" + text_of(function.__qualname__) + instructions(function.__code__)
        return head + sequence(self, b"t", kept)


def text_alone(namespace: Mapping[str, Any], name: str, value: object) -> bytes | None:
    """Return the encoding of one value; None if it can't be compared."""
    try:
        return _Content(name, namespace).top(value)
    except Exception:  # noqa: BLE001 - whatever stands in a module: it has no state, then
        return None


def is_live(value: object) -> bool:
    """Tell whether a value gives what it has only once: an iterator, a generator, a coroutine."""
    cls = type(value)
    if (cls.__module__, cls.__name__) in _PATCHES:
        return True
    if cls.__module__ in {"builtins", "itertools"}:
        return hasattr(cls, "__next__") or isinstance(value, _FOREVER)
    return False


def _is_full(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
