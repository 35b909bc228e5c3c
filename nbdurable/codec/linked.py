"""Values that share memory, pickled together so that they share it again when they are restored.

Invariant: what comes back is linked as what was pickled: arrays that lay in one piece of memory
lie in one piece, functions read the namespace that is given, definitions of the notebook are those
that it holds. What is live, or would come back without a link that it has, is refused.
"""

from __future__ import annotations

import copyreg
import ctypes
import functools
import gc
import importlib
import io
import linecache
import marshal
import mmap
import os
import pickle
import sys
import types
from collections.abc import Mapping  # noqa: TC003 - a module's annotation is read at run time
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any, NamedTuple

import cloudpickle

from nbdurable.errors import CodecError, DecodeError, EncodeError
from nbdurable.isolation import Apart
from nbdurable.pickled import frozen

from .definitions import Decoding, InNotebook
from .values import LARGE, Pickler, Shared, dump, named_here

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_AGAIN = "the cell that makes it runs again"
_RAW = "?biufcmMSUV"  # kinds of elements; strings of any length, for one, lie elsewhere
_NONE: Mapping[Any, Any] = {}
_ROOT = 64  # arrays that are views of each other, at most


class Region:
    """A piece of memory, pickled as its bytes; the memory's owners are kept alive meanwhile."""

    __slots__ = ("_owners", "high", "low")

    def __init__(self, low: int, high: int, owners: Sequence[Any]) -> None:
        self.low = low
        self.high = high
        self._owners = owners

    def content(self) -> PickleBuffer:
        """Return the bytes, where they lie."""
        return PickleBuffer((ctypes.c_ubyte * (self.high - self.low)).from_address(self.low))


class Objects:
    """An array of objects that others are views of, pickled as the objects."""

    __slots__ = ("low", "root")

    def __init__(self, root: Any, low: int) -> None:
        self.root = root
        self.low = low


class View(NamedTuple):
    """What a value is a view of: a `Region`, `Objects`, or a bytearray or array; its address."""

    source: Any
    low: int


class Kept:
    """A group of names as one value that the store keeps like any other.

    Its large buffers are those of the live objects, not copied, until it is pickled: save it
    before anything else runs. Then they go out of band, and a store that holds them already
    writes nothing. ``names`` are the names; ``classes`` those of them that are classes of the
    notebook: groups that have such are restored before others. ``live`` says whether the
    buffers are still those of the live objects.
    """

    __slots__ = ("buffers", "classes", "data", "live", "names")

    def __init__(
        self,
        data: bytes,
        names: tuple[str, ...],
        classes: tuple[str, ...],
        buffers: tuple[Any, ...],
        *,
        live: bool,
    ) -> None:
        self.data = data
        self.names = names
        self.classes = classes
        self.buffers = buffers
        self.live = live

    @property
    def size(self) -> int:
        """Bytes that are saved, at most: buffers that the store holds already cost nothing."""
        return len(self.data) + sum(memoryview(one).nbytes for one in self.buffers)

    def __reduce_ex__(self, _: Any) -> Any:
        return kept_of, (self.data, self.names, self.classes, *map(PickleBuffer, self.buffers))


@frozen("kept")
def kept_of(data: bytes, names: tuple[str, ...], classes: tuple[str, ...], *buffers: Any) -> Kept:
    """Restore a group of names that was saved."""
    return Kept(data, names, classes, buffers, live=False)


class Defined:
    """A class of the notebook as a name's value: the live one if there is one, else made anew.

    ``state`` are the names of what it holds that is kept beside it.
    """

    __slots__ = ("kind", "state")

    def __init__(self, kind: type, state: frozenset[str]) -> None:
        self.kind = kind
        self.state = state


def dump_linked(
    value: object,
    namespace: dict[str, Any],
    views: Mapping[int, View],
    is_own: Callable[[Any], bool],
    classes: Mapping[int, Defined] = _NONE,
) -> tuple[bytes, tuple[memoryview, ...]]:
    """Return a pickle of a value, made in one pass, and its large buffers, not copied.

    Args:
        value: What is pickled.
        namespace: The notebook's.
        views: By their ids: what lies in memory that it shares.
        is_own: Tells of a function whether the notebook defines it: it is pickled by name.
        classes: By their ids: the notebook's that are pickled with their definitions.

    Raises:
        EncodeError: Something can't be pickled, or not with its links.
    """
    buffers: list[memoryview] = []

    def stays(buffer: PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < LARGE:
            return True
        buffers.append(raw)
        return False

    stream, shared = io.BytesIO(), Shared()
    with InNotebook(namespace):
        dump(_LinkedPickler(stream, shared, views, is_own, classes, buffer_callback=stays), value)
    return stream.getvalue(), tuple(buffers)


def load_linked(
    kept: Kept, namespace: dict[str, Any], say: Callable[[str], object] | None = None
) -> Any:
    """Restore what `dump_linked` pickled. The caller has verified the signature.

    Buffers that a store gave are taken over, so that this is done once; live ones are copied.

    Args:
        kept: What was pickled.
        namespace: The notebook's.
        say: Is told of a class that had to be made anew.

    Raises:
        DecodeError: A definition is gone; says what to run.
    """
    buffers = list(map(bytearray, kept.buffers)) if kept.live else kept.buffers
    try:
        with InNotebook(namespace), Apart(), Decoding(pickle.loads, {}, say):
            return pickle.loads(kept.data, buffers=buffers)
    except DecodeError:
        raise
    except Exception as error:
        message = f"the saved values can't be restored here: {type(error).__name__}: {error}"
        raise DecodeError(message) from error


class _LinkedPickler(Pickler):
    """The codec's pickler, which also keeps views as views and refuses what is live."""

    def __init__(
        self,
        file: Any,
        shared: Shared,
        views: Mapping[int, View],
        is_own: Callable[[Any], bool],
        classes: Mapping[int, Defined] = _NONE,
        *,
        buffer_callback: Callable[[PickleBuffer], object] | None = None,
        made: Defined | None = None,
    ) -> None:
        super().__init__(file, shared, buffer_callback=buffer_callback)
        self._shared = shared
        self._views = views
        self._is_own = is_own
        self._classes = classes
        self._made = made  # the class that this pickle defines

    def reducer_override(self, obj: Any) -> Any:
        """Return how an object is pickled; NotImplemented for as pickle does it."""
        cls = type(obj)
        view = self._views.get(id(obj))
        if view is not None:
            return _over(obj, view)
        if cls is types.FunctionType and self._is_own(obj):
            return function_named, (obj.__qualname__,)
        if cls is Defined:
            return defined, (obj.kind.__qualname__, self._definition(obj))
        if issubclass(cls, type):
            if self._made is not None and obj is self._made.kind:
                return _made_anew(cloudpickle.Pickler.reducer_override(self, obj), self._made)
            if (found := self._classes.get(id(obj))) is not None:
                return itself, (found,)
        special = _SPECIAL.get(cls)
        if special is not None:
            return special(obj)
        if cls.__module__ in _ITERATING and hasattr(cls, "__next__"):
            raise EncodeError(f"{_article(cls)} can be read once, and can't be kept", _AGAIN)
        if (numpy := sys.modules.get("numpy")) is not None:
            found = _of_numpy(numpy, obj)
            if found is not None:
                return found
        if cls.__module__ == "sklearn.utils._bunch":
            return copyreg.__newobj__, (cls,), vars(obj), None, iter(obj.items()), set_attributes  # type: ignore[attr-defined] # untyped
        if cls.__module__.startswith("pandas.") and (found := _of_pandas(obj)) is not None:
            return found
        return super().reducer_override(obj)

    def _definition(self, made: Defined) -> bytes:
        """Return a pickle that defines a class; nothing if there can be none."""
        stream = io.BytesIO()
        try:
            dump(_LinkedPickler(stream, self._shared, {}, self._is_own, made=made), made.kind)
        except CodecError:
            return b""
        return stream.getvalue()


def _made_anew(reduced: Any, made: Defined) -> Any:
    """Return cloudpickle's reduction of a class, without its state and without its token.

    By the token it would fill the live class.
    """
    make, arguments, (held, slots), *rest = reduced
    *arguments, _, more = arguments
    held = {name: value for name, value in held.items() if name not in made.state}
    return (make, (*arguments, None, more), (held, slots), *rest)


@frozen("itself")
def itself(value: Any) -> Any:
    """Return what it is given: a class that is pickled elsewhere in the pickle."""
    return value


@frozen("defined")
def defined(qualname: str, definition: bytes) -> type:
    """Return the live class of this name, or one that is made from its definition."""
    found: Any = named_here(qualname)
    if found is None:
        if not definition:
            raise DecodeError(
                f"class `{qualname}` is not defined in this notebook: run the cell that defines it"
            )
        found = pickle.loads(definition)
    kind: type = found
    return kind


@frozen("function_named")
def function_named(qualname: str) -> Any:
    """Return the live function of this name."""
    found = named_here(qualname)
    if found is None:
        raise DecodeError(
            f"function `{qualname}` is not defined in this notebook: run the cell that defines it"
        )
    return found


_ITERATING = frozenset({"builtins", "itertools", "_csv"})


def _article(cls: type) -> str:
    return f"{'an' if cls.__name__[:1] in 'aeiou' else 'a'} {cls.__name__}"


def _of_region(region: Region) -> Any:
    return region_of, (region.content(),)


@frozen("region")
def region_of(content: Any) -> Any:
    """Return a restored piece of memory: what is written to it is seen by all that lie in it."""
    return bytearray(content) if memoryview(content).readonly else content


def _of_objects(objects: Objects) -> Any:
    flat = objects.root.reshape(-1, order="A")
    return objects_of, (flat.size,), flat.tolist(), None, None, fill_objects


@frozen("objects")
def objects_of(size: int) -> Any:
    """Make an empty array of objects, which is filled next: it may hold itself."""
    numpy: Any = importlib.import_module("numpy")
    return numpy.empty(size, dtype=object)


@frozen("fill_objects")
def fill_objects(flat: Any, items: list[Any]) -> None:
    """Fill an array of objects."""
    for at, item in enumerate(items):
        flat[at] = item


# --- views ------------------------------------------------------------------------------


def _over(value: Any, view: View) -> Any:
    """Return how a value is made again over what it is a view of."""
    source = view.source
    if isinstance(value, memoryview):
        return _memoryview_over(value, view)
    _refuse_mapped(sys.modules["numpy"], value)
    first = value.__array_interface__["data"][0]
    where = (first - view.low, value.dtype, value.shape, value.strides)
    if isinstance(source, Objects):
        where = ((first - source.low) // value.itemsize, value.dtype, value.shape, value.strides)
    cls = type(value)
    numpy: Any = sys.modules["numpy"]
    made = (source, *where, value.flags.writeable, None if cls is numpy.ndarray else cls)
    state = dict(getattr(value, "__dict__", {}))
    return (array_over, made, state, None, None, set_attributes) if state else (array_over, made)


@frozen("array_over")
def array_over(  # noqa: PLR0917 - pickle gives them by their positions
    source: Any,
    offset: int,
    dtype: Any,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    writeable: bool,  # noqa: FBT001 - likewise
    kind: Any,
) -> Any:
    """Make an array again, in the memory of others."""
    numpy: Any = sys.modules["numpy"]
    if dtype.hasobject:
        made = numpy.lib.stride_tricks.as_strided(source[offset:], shape, strides)
    else:
        made = numpy.ndarray(shape, dtype, source, offset, strides)
    if kind is numpy.void:
        return made[()]  # a row of a structured array
    if kind is not None:
        made = made.view(kind)
    if not writeable:
        made.flags.writeable = False
    return made


@frozen("set_attributes")
def set_attributes(value: Any, state: dict[str, Any]) -> None:
    """Give an array of a class of its own its attributes."""
    vars(value).update(state)


def _memoryview_over(value: memoryview, view: View) -> Any:
    numpy = sys.modules.get("numpy")
    if value.contiguous and value.ndim <= 1 and not isinstance(view.source, Objects):
        start = _address(value) - view.low
        return memoryview_over, (view.source, start, value.nbytes, value.format, value.readonly)
    what = "strided" if numpy is None or value.ndim <= 1 else f"{value.ndim}-dimensional"
    raise EncodeError(f"a {what} memoryview shares its memory", "keep the array that it is of")


def _address(value: memoryview) -> int:
    """Return where a memoryview begins that is contiguous."""
    if not value.nbytes:
        return 0
    if not value.readonly:
        return ctypes.addressof(ctypes.c_char.from_buffer(value.cast("B")))
    numpy: Any = importlib.import_module("numpy")
    found: int = numpy.frombuffer(value, "u1").__array_interface__["data"][0]
    return found


@frozen("memoryview_over")
def memoryview_over(
    source: Any,
    start: int,
    length: int,
    form: str,
    readonly: bool,  # noqa: FBT001 - pickle gives it by its position
) -> memoryview:
    """Make a memoryview again, in the memory of others."""
    flat = memoryview(source).cast("B")[start : start + length]
    made: memoryview = flat.cast(form)  # type: ignore[call-overload]
    return made.toreadonly() if readonly else made


def _of_numpy(numpy: Any, value: Any) -> Any:
    """Return how an array that shares nothing is pickled; None for as the codec does it."""
    if isinstance(value, numpy.void):
        if value.base is not None and value.dtype.names:
            raise EncodeError("a row of a structured array shares its memory", "keep a .copy()")
        return None
    if not isinstance(value, numpy.ndarray):
        return None
    _refuse_mapped(numpy, value)
    if type(value) is not numpy.ndarray or not is_raw(value.dtype) or not value.nbytes:
        return None if value.flags.writeable else (read_only, (value.copy(order="K"),))
    if value.flags.forc:
        if value.flags.writeable:
            return None
        first = value.__array_interface__["data"][0]
        region = Region(first, first + value.nbytes, (value,))
        return _over(value, View(region, first))
    low, high = numpy.lib.array_utils.byte_bounds(value)
    if high - low <= value.nbytes:
        return _over(value, View(Region(low, high, (value,)), low))
    return None if value.flags.writeable else (read_only, (value.copy(order="K"),))


def is_raw(dtype: Any) -> bool:
    """Tell whether elements are no more than the bytes that they are made of."""
    return dtype.kind in _RAW and not dtype.hasobject


@frozen("read_only")
def read_only(array: Any) -> Any:
    """Make an array one that can't be written to."""
    array.flags.writeable = False
    return array


def _of_pandas(value: Any) -> Any:
    """Return how a block is pickled that several frames use; None for as pandas does it."""
    internals = sys.modules["pandas._libs.internals"]
    managers = sys.modules["pandas.core.internals.managers"]
    cls = type(value)
    if cls is internals.BlockValuesRefs:
        return block_users, ()
    if isinstance(value, internals.Block) and value.refs.has_reference():
        return block_of, (cls, value.values, value.mgr_locs.indexer, value.ndim, value.refs)
    if cls is managers.SingleBlockManager and value.blocks[0].refs.has_reference():
        return cls, (value.blocks[0], value.axes[0])  # its own state has no block, but its values
    return None


@frozen("block_users")
def block_users() -> Any:
    """Return what pandas counts by who uses one block's memory: it copies before it writes."""
    return importlib.import_module("pandas._libs.internals").BlockValuesRefs()


@frozen("block")
def block_of(kind: Any, values: Any, indexer: Any, ndim: int, users: Any) -> Any:
    """Make a block of a frame again, that others use, too."""
    internals = importlib.import_module("pandas._libs.internals")
    return kind(values, internals.BlockPlacement(indexer), ndim, users)


def _refuse_mapped(numpy: Any, array: Any) -> None:
    """Refuse what lies in a file that is mapped: a change of one is a change of the other."""
    for _ in range(_ROOT):
        array = array.base
        if isinstance(array, mmap.mmap):
            raise EncodeError("a memory-mapped file can't be kept", _AGAIN)
        if not isinstance(array, numpy.ndarray):
            return


# --- what else is pickled its own way ------------------------------------------------------


def _of_code(code: types.CodeType) -> Any:
    """Pickle code with its file's name and text, by which it is known in tracebacks."""
    path = code.co_filename
    text = "" if os.path.exists(path) else "".join(linecache.getlines(path))  # noqa: PTH110
    return code_of, (sys.version_info[:2], marshal.dumps(code), code.co_filename, text)


@frozen("code")
def code_of(version: tuple[int, int], data: bytes, path: str, text: str) -> types.CodeType:
    """Make code again, and its text known to tracebacks and `inspect`."""
    if tuple(version) != sys.version_info[:2]:
        said = ".".join(map(str, version))
        raise DecodeError(f"a saved function is of Python {said}: run the cell that makes it")
    if text and path not in linecache.cache:
        linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
    code: types.CodeType = marshal.loads(data)  # noqa: S302 - as any pickle
    return code


def _of_lru(wrapper: Any) -> Any:
    """Pickle what remembers results without the results, which are computed again."""
    said = wrapper.cache_parameters()
    state = {name: one for name, one in vars(wrapper).items() if name != "__wrapped__"}
    return lru_of, (said["maxsize"], said["typed"], wrapper.__wrapped__), state


@frozen("lru")
def lru_of(maxsize: int | None, typed: bool, function: Any) -> Any:  # noqa: FBT001 - as above
    """Make a function that remembers results again."""
    return functools.lru_cache(maxsize, typed)(function)


def _of_proxy(proxy: Any) -> Any:
    """Pickle a read-only view of a dictionary with the dictionary, which cloudpickle copies."""
    held = next((one for one in gc.get_referents(proxy) if isinstance(one, dict)), None)
    if held is None:
        raise EncodeError("a read-only view of a mapping of its own can't be kept", _AGAIN)
    return proxy_of, (held,)


@frozen("proxy")
def proxy_of(held: dict[Any, Any]) -> Any:
    """Return a read-only view of a dictionary."""
    return types.MappingProxyType(held)


def _of_dict_view(view: Any) -> Any:
    held = next(one for one in gc.get_referents(view) if isinstance(one, dict))
    return dict_view, (held, type(view).__name__.partition("_")[2])


@frozen("dict_view")
def dict_view(held: dict[Any, Any], kind: str) -> Any:
    """Return a dictionary's keys, values or items."""
    return getattr(held, kind)()


_EMPTY: dict[Any, Any] = {}
_SPECIAL: dict[type, Callable[[Any], Any]] = {
    Region: _of_region,
    Objects: _of_objects,
    types.CodeType: _of_code,
    types.MappingProxyType: _of_proxy,
    type(functools.lru_cache(print)): _of_lru,
    type(_EMPTY.keys()): _of_dict_view,
    type(_EMPTY.values()): _of_dict_view,
    type(_EMPTY.items()): _of_dict_view,
}
