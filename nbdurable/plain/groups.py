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
from typing import TYPE_CHECKING, Any, TypeVar

from nbdurable.errors import DurableError
from nbdurable.fingerprint import Fingerprinter
from nbdurable.fingerprint.prints import digest16
from nbdurable.fingerprint.source import instructions
from nbdurable.fingerprint.values import Walk, sealed, sequence, text_of

from .definitions import class_state, is_own
from .figures import version_of
from .libraries import figure_of
from .links import Links
from .looking import STILL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

T = TypeVar("T")

_SHELLS = re.compile(r"__\w+__|_+|_i+|_i?\d+|_[ido]h|_exit_code|__pydevd\w*")
_SHELL = frozenset({"In", "Out", "exit", "quit", "get_ipython", "open"})
_FOREVER = (
    types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType, types.FrameType,
)  # fmt: skip
_LONGEST = 64
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


def reach(namespace: Mapping[str, object], names: Iterable[str]) -> frozenset[str]:
    """Return all names through which a change made through one of ``names`` can be seen.

    They are the groups of ``names``, and those of the notebook's own classes and functions
    that keep state and are used in them (the class of an instance, a function in a list):
    a method may change its class. The shell's names (``Out``, ``_``) are no part of it.
    A name that isn't there is returned and leads nowhere.
    """
    asked = frozenset(names)
    found = _Partition(namespace, asked)
    reached: set[str] = set()
    todo = list(asked)
    while todo:
        name = todo.pop()
        if name not in reached:
            group = found.group(name)
            reached |= group
            for one in group:
                todo += found.uses.get(one, ())
    return frozenset(reached)


def partition(namespace: Mapping[str, object], names: Iterable[str]) -> list[frozenset[str]]:
    """Return names as groups that share nothing with each other, in the order of the names.

    Only ``names`` are looked at: those that share with others in the namespace are not
    joined by that. Names that aren't there are left out.
    """
    wanted = sorted(name for name in set(names) if name in namespace)
    found = _Partition({name: namespace[name] for name in wanted}, (), space=namespace)
    return list(dict.fromkeys(found.group(name) for name in wanted))


class _Partition:
    """The names of a namespace, joined where they share something."""

    def __init__(
        self,
        values: Mapping[str, object],
        asked: Iterable[str],
        space: Mapping[str, object] | None = None,
    ) -> None:
        self.uses: dict[str, tuple[str, ...]] = {}
        self._parents: dict[str, str] = {}
        self._groups: dict[str, frozenset[str]] | None = None
        links = Links(values if space is None else space)
        wanted = frozenset(asked)
        owners: list[str] = []
        met, again = links.met, links.again
        for name, value in list(values.items()):
            if type(value) in STILL or (name not in wanted and not is_users(name)):
                continue
            links.follow(value)
            owners += [name] * (len(met) - len(owners))
            if again:
                for _, number in again:
                    self._join(name, owners[number])
                again.clear()
            if links.uses:
                self.uses[name] = tuple(links.uses)
                links.uses.clear()
        for together in links.memory.shared():
            first = owners[together[0].number]
            for one in together[1:]:
                self._join(first, owners[one.number])

    def _root(self, name: str) -> str:
        parents = self._parents
        while (above := parents.get(name, name)) != name:
            parents[name] = parents.get(above, above)
            name = above
        return name

    def _join(self, one: str, other: str) -> None:
        one, other = self._root(one), self._root(other)
        if one != other:
            self._parents[other] = one
            self._parents.setdefault(one, one)

    def group(self, name: str) -> frozenset[str]:
        """Return the group of a name; a name that isn't there is alone."""
        if self._groups is None:
            members: dict[str, set[str]] = {}
            for one in self._parents:
                members.setdefault(self._root(one), set()).add(one)
            self._groups = {one: frozenset(group) for group in members.values() for one in group}
        return self._groups.get(name, frozenset({name}))


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
    texts.append(b"%r%r" % (links.again, links.details))
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
        self._figures: Any = getattr(sys.modules.get("matplotlib.artist"), "Artist", None)

    def top_of(self, value: Any) -> bytes:
        """Return the encoding of the value itself: of a definition, with all that it keeps."""
        if isinstance(value, type) and is_own(self._space, value):
            return sealed(self._class(value), _LONGEST)
        if isinstance(value, types.FunctionType) and is_own(self._space, value):
            return sealed(self._function(value), _LONGEST)
        return self.top(value)

    def node(self, value: T, body: Callable[[Walk, T], bytes]) -> bytes:
        """Encode what other values may share, but for what is live or drawn."""
        if self._figures is not None and isinstance(value, self._figures):
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
            return b"m" + text_of(value.__name__)
        if is_own(self._space, value):
            return b"n" + text_of(value.__qualname__)
        return self._class(value) if isinstance(value, type) else self._function(value)

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


def is_live(value: object) -> bool:
    """Tell whether a value gives what it has only once: an iterator, a generator, a coroutine."""
    cls = type(value)
    if cls.__module__ in {"builtins", "itertools"}:
        return hasattr(cls, "__next__") or isinstance(value, _FOREVER)
    return False


def _is_full(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
