"""The fingerprinter: one per run, asked for code, arguments and single values.

Invariant: a remembered fingerprint is given again only after everything that it read was
looked at again; what can't change is compared by identity, the rest is digested anew.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import types
import weakref
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from nbdurable.errors import DurableError, FingerprintError
from nbdurable.fingerprint import arrays, builtin, frames, instances, values
from nbdurable.fingerprint.binding import Binder, unbound
from nbdurable.fingerprint.code import Reach, sample_of
from nbdurable.fingerprint.following import named_by, reference
from nbdurable.fingerprint.given import GivenInputs, joined, settled_of
from nbdurable.fingerprint.places import Places
from nbdurable.fingerprint.prints import (
    NOTHING_IGNORED,
    NOTHING_USED,
    Digested,
    Held,
    Ignored,
    Print,
    Used,
    digest16,
    nothing_moved,
)
from nbdurable.fingerprint.units import written_parameters
from nbdurable.fingerprint.values import LEAVES, Walk, sealed, text_of
from nbdurable.labels import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

values.RESOLVERS[:] = [arrays.resolve, frames.resolve, builtin.resolve, instances.resolve]

_NOTHING: frozenset[str] = frozenset()
_SLOW = 0.001
_SHORT = 64  # bytes of an encoding that are kept as they are
_MOST = 4096
_NO_KWARGS: Mapping[str, Any] = {}


_INNER = re.compile("<(lambda|locals)>")


class Options(Protocol):
    """What is asked of a step's options."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def named(self) -> bool: ...  # noqa: D102
    @property
    def ignore(self) -> frozenset[str]: ...  # noqa: D102
    @property
    def version(self) -> str | None: ...  # noqa: D102


class Fingerprinter:
    """Digests code and values, and remembers code between calls. Thread-safe."""

    def __init__(self, *, project_roots: Sequence[str] = (), strict: bool = False) -> None:
        self.strict = strict
        self.places = Places(project_roots)
        self.is_project_function = self.places.function
        self.is_project_module = self.places.module
        self._keys: dict[tuple[int, frozenset[str]], tuple[Callable[[], Any], Reach]] = {}
        self._classes: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()
        self._reached: dict[tuple[int, frozenset[str], int, bool, int], tuple[Any, Reach]] = {}
        self._looked_at: dict[
            tuple[int, frozenset[str], int], tuple[Callable[[], Any], Reach, Used]
        ] = {}
        self._called: dict[int, tuple[Callable[[], Any], str]] = {}
        self._binders: dict[int, tuple[Callable[[], Any], Any, Binder]] = {}

    def is_project_class(self, cls: type) -> bool:
        """Whether ``cls`` is the project's; remembered."""
        known = self._classes.get(cls)
        if known is None:
            known = self._classes[cls] = self.places.klass(cls)
        return known

    def code(
        self,
        fn: Callable[..., Any],
        *,
        ignore: frozenset[str] = _NOTHING,
        used: Used = NOTHING_USED,
    ) -> Print:
        """Fingerprint a callable's code and everything in the project that it reaches.

        Args:
            fn: a function, method, partial, class, callable instance or step.
            ignore: names of parameters and globals to leave out.
            used: attributes of the objects that it reads to leave out.

        Raises:
            FingerprintError: it can't be done, or in strict mode, something was left out.
            UsageError: the code holds a handle.
        """
        started = perf_counter()
        known = self._looked_at.get((id(fn), ignore, id(used)))
        if known is not None and known[0]() is fn and known[1].holds():
            found = known[1].print
        else:
            coded = self._coded(fn)
            reach = self.reach(coded, _ignored(coded, ignore), used=used)
            self._looked_at[id(coded), ignore, id(used)] = (reference(coded), reach, used)
            found = reach.print
        seconds = perf_counter() - started
        return found if seconds < _SLOW else found.timed(seconds)

    def key(self, fn: Callable[..., Any], options: Options) -> bytes:
        """Return what stands for a step's code alone, whatever the objects that it uses hold."""
        if options.version is not None:
            return digest16(text_of(options.name) + str(options.version).encode())
        coded = self._coded(fn)
        known = self._keys.get((id(coded), options.ignore))
        if known is not None and known[0]() is coded and known[1].steady():
            reach = known[1]
        else:
            reach = self.reach(coded, _ignored(coded, options.ignore))
            if len(self._keys) >= _MOST:
                self._keys.clear()
            self._keys[id(coded), options.ignore] = (reference(coded), reach)
        return digest16(text_of(options.name) + reach.texts)

    def text_key(self, cls: type) -> bytes:
        """Return what stands for the text of a class; nothing for one that is installed."""
        if not self.is_project_class(cls):
            return b""
        return self.reach(cls, NOTHING_IGNORED).texts

    def called(self, fn: Callable[..., Any], options: Options, used: Used = NOTHING_USED) -> str:
        """Return the name of a step in its calls: the given one, else the function's, qualified.

        Of what is defined inside a function, or has no name, its own code belongs to it, with
        what it captures and the global data that it names itself.
        """
        if options.named:
            return options.name
        known = self._called.get(id(fn))
        if known is not None and known[0]() is fn:
            return known[1]
        coded = self._coded(fn)
        name = printable(str(getattr(coded, "__qualname__", None) or type(coded).__qualname__))
        where = printable(str(getattr(coded, "__module__", None) or ""))
        if not isinstance(coded, types.FunctionType) or not _INNER.search(name):
            qualified = f"{where}.{name}"
            if coded is fn:
                if len(self._called) >= _MOST:
                    self._called.clear()
                self._called[id(fn)] = (reference(fn), qualified)
            return qualified
        try:
            reach = self.reach(coded, _ignored(coded, options.ignore), used=used)
        except DurableError:
            if options.version is None:
                raise
            return f"{where}.{name}"
        own = reach.own if options.version is None else reach.captured
        return f"{where}.{name}#{own.hex()}#{reach.captured.hex()}"

    def _coded(self, fn: Any) -> Any:
        """Return what says which code a callable runs: without ``self``, that is an argument."""
        while builtin.is_step(fn) or isinstance(fn, functools.partial):
            # What a partial binds is compared as arguments.
            fn = fn.func if isinstance(fn, functools.partial) else fn.__wrapped__
        if isinstance(fn, types.MethodType):
            return fn.__func__
        simple = isinstance(fn, (types.FunctionType, type, types.BuiltinFunctionType))
        if not simple and self.is_project_class(type(fn)):
            return type(fn)
        return fn

    def reach(
        self,
        root: Any,
        ignore: Ignored,
        *,
        documented: bool = False,
        used: Used = NOTHING_USED,
    ) -> Reach:
        """Return the fingerprint of a function or class, from memory if it still holds."""
        key = (id(root), ignore.names, id(ignore.space), documented, id(used))
        known = self._reached.get(key)
        if known is not None and known[0]() is root and known[1].holds():
            return known[1]
        try:
            made = Reach(self, root, ignore, documented=documented, used=used)
        except Exception as error:  # noqa: BLE001 - user code runs in there
            self._refuse(getattr(root, "__qualname__", repr(type(root))), root, error)
        if len(self._reached) >= _MOST:
            self._reached.clear()
            self._looked_at.clear()
        self._reached[key] = (reference(root), made)
        return made

    def arguments(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any] = _NO_KWARGS,
        *,
        ignore: frozenset[str] = _NOTHING,
        held: Held | None = None,
        used: Used = NOTHING_USED,
    ) -> Print:
        """Fingerprint the arguments of a call, by parameter.

        Args:
            fn: what is called.
            args: positional arguments.
            kwargs: named arguments.
            ignore: names of parameters to leave out.
            held: what many calls have in common, each value digested once for all.
            used: attributes of the objects among them to leave out.

        Raises:
            FingerprintError: it can't be done, or in strict mode, something was left out.
            UsageError: a handle is inside an object that is no list, tuple or dict.
        """
        target: Any = fn
        if type(fn) is not types.FunctionType:
            target, args, kwargs = unbound(fn, args, kwargs)
        binder = self._binder(target)
        pairs = binder.bind(args, kwargs)
        left_out = NOTHING_IGNORED
        if ignore:
            left_out = _ignored(target, ignore)
            pairs = [p for p in pairs if p[0].lstrip("*") not in ignore]
        known = self._looked_at.get((id(target), ignore, id(used)))
        if known is not None and known[1].runs and known[0]() is target:
            pairs += named_by(target, known[1].runs, [value for _, value in pairs])
        if held or used:
            return self._print_slow(pairs, left_out, held, used)
        return self._print(pairs, left_out)

    def parameters(self, fn: Callable[..., Any]) -> tuple[str, ...]:
        """Return the names of the parameters that a call's positional arguments go to."""
        target, bound, _ = unbound(fn, (), {})
        return self._binder(target).names[len(bound) :]

    def _binder(self, fn: Any) -> Binder:
        known = self._binders.get(id(fn))
        code = getattr(fn, "__code__", None)
        if known is not None and known[0]() is fn and known[1] is code:
            return known[2]
        inner = inspect.unwrap(fn) if code is not None else None
        written = frozenset[str]()
        if isinstance(inner, types.FunctionType) and self.places.function(inner):
            written = written_parameters(inner)
        made = Binder(fn, inner, written)
        if len(self._binders) >= _MOST:
            self._binders.clear()
        self._binders[id(fn)] = (reference(fn), code, made)
        return made

    def value(self, value: object, name: str = "value") -> Print:
        """Fingerprint one value."""
        return self._print([(name, value)], NOTHING_IGNORED)

    def _print(self, pairs: list[tuple[str, Any]], ignore: Ignored) -> Print:
        """Digest named values together."""
        named: list[tuple[str, bytes]] = []
        for name, value in pairs:
            encode = LEAVES.get(type(value))
            if encode is None:
                return self._print_slow(pairs, ignore)
            text = encode(None, value)
            named.append((name, text if len(text) <= _SHORT else sealed(text, _SHORT)))
        return Print(joined(named), named)

    def _print_slow(
        self,
        pairs: list[tuple[str, Any]],
        ignore: Ignored,
        held: Held | None = None,
        used: Used = NOTHING_USED,
    ) -> Print:
        started = perf_counter()
        named: list[tuple[str, bytes]] = []
        inputs: list[tuple[str, Digested]] = []
        walk = Walk(self, "", ignore=ignore, used=used)
        for name, value in pairs:
            known = held.get(name) if held is not None else None
            if known is None or known.value is not value or known.used is not used:
                known = self._digested(walk, name, value)
                if held is not None and name in held:
                    held[name] = known
            named.append((name, known.text))
            if known.mutable:
                inputs.append((name, known))
        seconds = perf_counter() - started
        kept = GivenInputs(self, named, inputs, ignore, used) if inputs else None
        return Print(
            joined(named),
            named,
            tuple(walk.notes),
            seconds if seconds >= _SLOW else 0.0,
            kept.moved if kept is not None else nothing_moved,
            inputs=kept if any(one.changing for _, one in inputs) else None,
        )

    def _digested(self, walk: Walk, name: str, value: object) -> Digested:
        walk.start(name)
        before = len(walk.generators)
        try:
            text = walk.top(value)
            sampled = sample_of(self, None, name, value) if walk.big else None
            settled = settled_of(self, name, value, walk.ignore, walk.left) if walk.used else None
        except Exception as error:  # noqa: BLE001 - user code runs in there
            self._refuse(name, value, error)
        return Digested(
            value,
            text,
            sampled,
            settled,
            walk.mutable,
            changing=walk.changing and not walk.big,
            generators=tuple(walk.generators.values())[before:],
            pieces=[],
            used=walk.left,
        )

    def _refuse(self, name: str, value: object, error: Exception) -> NoReturn:
        """Turn what went wrong into an error that says what to do."""
        if isinstance(error, (DurableError, MemoryError)):
            raise error
        why = (
            "it is nested too deeply"
            if isinstance(error, RecursionError)
            else f"{type(error).__name__}: {error}"
        )
        msg = (
            f"`{name}` ({type(value).__name__}) has no fingerprint: {why}; say what identifies "
            f"the call with key=, leave it out with ignore=({name!r},), or, for code, state a "
            f"version="
        )
        raise FingerprintError(msg) from error


def _ignored(coded: Any, names: frozenset[str]) -> Ignored:
    """Return what a step leaves out: its module is that of the function that it is made of."""
    if not names:
        return NOTHING_IGNORED
    inner = inspect.unwrap(coded) if isinstance(coded, types.FunctionType) else coded
    if isinstance(inner, types.FunctionType):
        return Ignored(names, inner.__globals__)
    cls = inner if isinstance(inner, type) else type(inner)
    return Ignored(
        names, vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else None
    )
