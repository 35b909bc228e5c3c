"""pandas, polars and Arrow values to canonical bytes: schema, names, then column by column.

Invariant: chunks, offsets, spare validity bitmaps and what lies under nulls leave no trace; a
slice equals its copy. The libraries are never imported here.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from xxhash import xxh3_128

from nbdurable.fingerprint.arrays import elements, sampled
from nbdurable.fingerprint.prints import state_of
from nbdurable.fingerprint.values import BIG, Encoder, Walk, qualified, sequence, text_of

_VERSIONS = re.compile(rb'"(pandas_version|creator)": ?(\{[^}]*\}|"[^"]*")')


def resolve(cls: type) -> Encoder | None:
    """Find the encoder for a pandas, polars or pyarrow class."""
    pandas: Any = sys.modules.get("pandas")
    if pandas is not None and hasattr(pandas, "DataFrame"):
        found = _pandas(pandas, cls)
        if found is not None:
            return found
    polars: Any = sys.modules.get("polars")
    if polars is not None and hasattr(polars, "DataFrame"):
        if issubclass(cls, polars.DataFrame):
            return _node(_polars_frame)
        if issubclass(cls, polars.Series):
            return _node(_polars_series)
        if issubclass(cls, polars.DataType) or cls.__name__ == "DataTypeClass":
            return lambda walk, v: b"x" + text_of("polars.") + _polars_dtype(walk, v)
    arrow: Any = sys.modules.get("pyarrow")
    return _arrow(arrow, cls) if arrow is not None and hasattr(arrow, "Table") else None


def _pandas(pandas: Any, cls: Any) -> Encoder | None:
    if issubclass(cls, pandas.DataFrame):
        return _node(_frame)
    if issubclass(cls, pandas.Series):
        return _node(_series)
    if issubclass(cls, pandas.Index):
        return _node(_index)
    if issubclass(cls, pandas.api.extensions.ExtensionArray):
        return _node(_column)
    if issubclass(cls, pandas.api.extensions.ExtensionDtype):
        return lambda walk, v: b"o" + text_of("pandas.dtype") + _dtype(walk, v)
    if issubclass(cls, (pandas.Timestamp, pandas.Timedelta)):
        return _moment
    if cls.__module__.startswith("pandas.core."):
        if cls.__name__.endswith("GroupBy"):
            return _lazily(_GROUPED)
        if "_attributes" in vars(cls) and hasattr(cls, "agg"):
            return _lazily(tuple(cls._attributes))
    if cls in {type(pandas.NA), type(pandas.NaT)}:
        return lambda _, v: b"x" + text_of(qualified(type(v)))
    return None


def _arrow(arrow: Any, cls: type) -> Encoder | None:
    if issubclass(cls, (arrow.Table, arrow.RecordBatch)):
        return _node(_table)
    if issubclass(cls, (arrow.Array, arrow.ChunkedArray)):
        return _node(lambda walk, v: b"o" + text_of(qualified(_kind(v))) + arrow_column(walk, v))
    if issubclass(cls, arrow.Scalar):
        return lambda walk, v: walk.within(
            lambda: (
                b"o"
                + text_of("pyarrow.Scalar")
                + _arrow_type(walk, v.type)
                + walk.encode(v.as_py())
            )
        )
    if issubclass(cls, arrow.DataType):
        return lambda walk, v: b"o" + text_of("pyarrow.DataType") + _arrow_type(walk, v)
    if issubclass(cls, arrow.Field):
        return lambda walk, v: b"o" + text_of("pyarrow.Field") + _field(walk, v)
    if issubclass(cls, arrow.Schema):
        return lambda walk, v: b"o" + text_of("pyarrow.Schema") + _schema(walk, v)
    if issubclass(cls, arrow.Buffer):
        return _node(lambda _, v: b"o" + text_of("pyarrow.Buffer") + xxh3_128(v).digest())
    return None


def _kind(value: Any) -> type:
    """Arrow's class of arrays: one for all that are in one piece."""
    arrow = sys.modules["pyarrow"]
    kind: type = arrow.ChunkedArray if isinstance(value, arrow.ChunkedArray) else arrow.Array
    return kind


def _node(body: Encoder) -> Encoder:
    """Make an encoder for values that can change in place."""

    def encode(walk: Walk, value: Any) -> bytes:
        walk.mutable = True
        return walk.within(lambda: walk.node(value, body))

    return encode


# --- pandas

_GROUPED = ("keys", "level", "as_index", "sort", "group_keys", "observed", "dropna")


def _lazily(names: tuple[str, ...]) -> Encoder:
    """Make an encoder for what computes when it is asked: by what it was made of."""

    def body(walk: Walk, value: Any) -> bytes:
        state = state_of(value)
        fields = [state.get(name) for name in ("obj", *names, "_selection")]
        return b"o" + text_of(qualified(type(value))) + sequence(walk, b"t", fields)

    return _node(body)


def _class_of(walk: Walk, value: Any) -> bytes:
    cls = type(value)
    own = cls.__module__.partition(".")[0] == "pandas"
    return text_of(qualified(cls)) if own else walk.class_of(value)


def _moment(walk: Walk, value: Any) -> bytes:
    tz, fold = getattr(value, "tz", None), getattr(value, "fold", 0)
    fields = (int(value.asm8.view("i8")), value.unit, tz, fold)
    return b"o" + _class_of(walk, value) + sequence(walk, b"t", fields)


def _attrs(walk: Walk, value: Any) -> bytes:
    """Encode ``attrs`` and what a subclass adds to a frame."""
    extra = {n: getattr(value, n, None) for n in getattr(value, "_metadata", ()) if n != "name"}
    flag = b"" if value.flags.allows_duplicate_labels else b"!"
    return flag + walk.encode(dict(value.attrs)) + (walk.encode(extra) if extra else b"")


def _frame(walk: Walk, df: Any) -> bytes:
    head = b"o" + _class_of(walk, df) + _attrs(walk, df) + walk.encode(df.columns)
    columns = [_column(walk, df.iloc[:, at].array) for at in range(df.shape[1])]
    return head + walk.encode(df.index) + b"%x:" % len(columns) + b"".join(columns)


def _series(walk: Walk, s: Any) -> bytes:
    head = b"o" + _class_of(walk, s) + _attrs(walk, s) + walk.encode(s.name)
    return head + walk.encode(s.index) + _column(walk, s.array)


def _index(walk: Walk, index: Any) -> bytes:
    pandas = sys.modules["pandas"]
    head = b"o" + _class_of(walk, index) + walk.encode(list(index.names))
    if isinstance(index, pandas.RangeIndex):
        return head + walk.encode((index.start, index.stop, index.step))
    if isinstance(index, pandas.MultiIndex):
        levels = [index.get_level_values(at).array for at in range(index.nlevels)]
        return head + b"".join([_column(walk, level) for level in levels])
    return head + walk.encode(getattr(index, "freqstr", None)) + _column(walk, index.array)


def _dtype(walk: Walk, dtype: Any) -> bytes:
    pandas = sys.modules["pandas"]
    text = text_of(type(dtype).__name__) + text_of(str(dtype))
    if isinstance(dtype, pandas.CategoricalDtype):
        categories = dtype.categories
        return (
            text
            + (b"0" if categories is None else walk.encode(categories))
            + (b"T" if dtype.ordered else b"F")
        )
    return text + text_of(str(getattr(dtype, "storage", "")) + repr(getattr(dtype, "na_value", "")))


def _column(walk: Walk, array: Any) -> bytes:
    """Encode an extension array by its dtype and a canonical form of its values."""
    pandas: Any = sys.modules["pandas"]
    numpy: Any = sys.modules["numpy"]
    kinds = pandas.arrays
    dtype = array.dtype
    if isinstance(array, kinds.NumpyExtensionArray):
        return b"N" + elements(walk, array.to_numpy())
    head = b"C" + _dtype(walk, dtype)
    if isinstance(array, pandas.Categorical):
        return head + elements(walk, array.codes)
    if isinstance(array, (kinds.DatetimeArray, kinds.TimedeltaArray, kinds.PeriodArray)):
        return head + elements(walk, array.asi8)
    if isinstance(array, kinds.IntervalArray):
        return head + walk.encode(array.left) + walk.encode(array.right)
    if isinstance(array, kinds.SparseArray):
        return head + elements(walk, numpy.asarray(array))
    masked = (kinds.IntegerArray, kinds.FloatingArray, kinds.BooleanArray)
    if isinstance(array, masked):
        mask = array.isna()
        filled = array.to_numpy(dtype=dtype.numpy_dtype, na_value=dtype.numpy_dtype.type(0))
        return head + elements(walk, mask) + elements(walk, filled)
    if hasattr(array, "__arrow_array__") and "Arrow" in type(array).__name__:
        return head + arrow_column(walk, array.__arrow_array__())
    return head + elements(walk, numpy.asarray(array, dtype=object))


# --- polars


def _polars_frame(walk: Walk, df: Any) -> bytes:
    columns = [_polars_series(walk, s) for s in df.get_columns()]
    return (
        b"o"
        + text_of("polars.DataFrame")
        + b"%x:%x:" % (df.height, len(columns))
        + b"".join(columns)
    )


def _polars_dtype(walk: Walk, dtype: Any) -> bytes:
    """Encode a dtype, all categories of it and of what it holds included."""
    categories = getattr(dtype, "categories", None)
    text = text_of(repr(dtype))
    if categories is not None and hasattr(categories, "to_list"):
        text += walk.encode(categories.to_list())
    inner = getattr(dtype, "inner", None)
    if inner is not None:
        text += _polars_dtype(walk, inner)
    for field in getattr(dtype, "fields", ()) or ():
        text += _polars_dtype(walk, field.dtype)
    return text


def _polars_series(walk: Walk, s: Any) -> bytes:
    polars: Any = sys.modules["polars"]
    head = b"o" + text_of("polars.Series") + text_of(s.name) + _polars_dtype(walk, s.dtype)
    if s.dtype == polars.Object or "Object" in repr(s.dtype):
        return head + sequence(walk, b"l", s.to_list())
    if s.dtype in {polars.Categorical, polars.Enum}:
        s = s.cast(polars.String)
    if (
        "pyarrow" in sys.modules
        and "Categorical" not in repr(s.dtype)
        and "Enum" not in repr(s.dtype)
    ):
        return head + arrow_column(walk, s.to_arrow())
    return head + sequence(walk, b"l", s.to_list())


# --- Arrow


def _arrow_type(walk: Walk, kind: Any) -> bytes:
    """Encode a type: its name, and of a nested or an extension type what the name leaves out."""
    arrow: Any = sys.modules["pyarrow"]
    if isinstance(kind, arrow.BaseExtensionType):
        data = getattr(kind, "__arrow_ext_serialize__", bytes)()
        head = text_of(kind.extension_name) + walk.encode(data)
        return b"e" + head + text_of(str(kind)) + _arrow_type(walk, kind.storage_type)
    if arrow.types.is_dictionary(kind):
        return b"d" + text_of(str(kind)) + _arrow_type(walk, kind.value_type)
    fields = [kind.field(at) for at in range(kind.num_fields)]
    return b"k" + text_of(str(kind)) + b"".join([_field(walk, field) for field in fields]) + b";"


def _field(walk: Walk, field: Any) -> bytes:
    head = text_of(field.name) + (b"T" if field.nullable else b"F")
    return head + _arrow_type(walk, field.type) + walk.encode(_metadata(field.metadata))


def _metadata(metadata: Any) -> dict[bytes, bytes]:
    """Return metadata without the versions that pandas and Arrow write into it."""
    found = dict(metadata or {})
    if b"pandas" in found:
        found[b"pandas"] = _VERSIONS.sub(b"", found[b"pandas"])
    return found


def _schema(walk: Walk, schema: Any) -> bytes:
    fields = b"".join([_field(walk, field) for field in schema])
    return b"%x:" % len(schema) + fields + walk.encode(_metadata(schema.metadata))


def _table(walk: Walk, table: Any) -> bytes:
    head = b"o" + text_of(qualified(type(table))) + _schema(walk, table.schema)
    columns = b"".join([arrow_column(walk, column) for column in table.columns])
    return head + b"%x:" % table.num_rows + columns


def arrow_column(walk: Walk, column: Any) -> bytes:
    """Encode an Arrow array, chunked or not: the same for the same content."""
    chunks = column.chunks if hasattr(column, "chunks") else [column]
    head = _arrow_type(walk, column.type) + b"%x:" % len(column)
    if column.nbytes >= BIG:
        walk.big = True
        if walk.sample:
            return head + b"".join(
                sampled(memoryview(part).cast("B"))
                for chunk in chunks
                for part in chunk.buffers()
                if part is not None and part.size
            )
    streams = _Streams(walk)
    for chunk in chunks:
        streams.add("", chunk)
    return head + streams.text()


class _Streams:
    """Validity, lengths and values of a column and its children, each as one stream."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self._hashers: dict[str, Any] = {}
        self._words: dict[str, dict[Any, None]] = {}  # dictionaries, all chunks' together

    def text(self) -> bytes:
        """Return all streams' digests."""
        for path, words in self._words.items():
            self._feed(path + ":words", self._walk.encode(list(words)))
        return (
            b"".join(
                [b"%b%b" % (text_of(name), h.digest()) for name, h in sorted(self._hashers.items())]
            )
            + b";"
        )

    def _feed(self, name: str, data: Any) -> None:
        hasher = self._hashers.get(name)
        if hasher is None:
            hasher = self._hashers[name] = xxh3_128()
        if len(data):
            hasher.update(data)

    def add(self, path: str, array: Any) -> None:
        """Feed one piece of a column."""
        arrow: Any = sys.modules["pyarrow"]
        types = arrow.types
        kind = array.type
        if not len(array):
            return
        if isinstance(array, arrow.ExtensionArray):
            self.add(path, array.storage)
        elif types.is_dictionary(kind):
            self._words.setdefault(path, {}).update(dict.fromkeys(array.dictionary.to_pylist()))
            self.add(path, array.dictionary_decode())
        elif types.is_null(kind):
            self._feed(path, b"")
        elif types.is_struct(kind):
            self._validity(path, array)
            for at, child in enumerate(array.flatten()):
                self.add(f"{path}.{at}", child)
        elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            self._validity(path, array)
            full = array.drop_null()
            self._fixed(path + ":size", full.value_lengths().cast(arrow.int64()))
            self.add(path + "[]", full.flatten())
        elif types.is_fixed_size_binary(kind) or types.is_primitive(kind) or types.is_decimal(kind):
            self._validity(path, array)
            self._fixed(path, array.drop_null())
        elif types.is_unicode(kind) or types.is_binary(kind):
            self._binary(path, array, large=False)
        elif kind in {arrow.large_string(), arrow.large_binary()}:
            self._binary(path, array, large=True)
        elif kind in {arrow.string_view(), arrow.binary_view()}:
            target = arrow.large_string() if kind == arrow.string_view() else arrow.large_binary()
            self._binary(path, array.cast(target), large=True)
        else:
            self._any(path, array)

    def _validity(self, path: str, array: Any) -> None:
        """Feed one byte per element: whether it is there."""
        arrow: Any = sys.modules["pyarrow"]
        if array.null_count:
            self._fixed(path + ":valid", array.is_valid().cast(arrow.uint8()))
        else:
            self._feed(path + ":valid", b"\x01" * len(array))

    def _fixed(self, path: str, array: Any) -> None:
        """Feed elements of one width, none of them null."""
        arrow: Any = sys.modules["pyarrow"]
        if not len(array):
            return
        if arrow.types.is_boolean(array.type):
            array = array.cast(arrow.uint8())
        width = array.type.bit_width // 8
        view = memoryview(array.buffers()[1]).cast("B")
        self._feed(path, view[array.offset * width : (array.offset + len(array)) * width])

    def _binary(self, path: str, array: Any, *, large: bool) -> None:
        """Feed strings: their lengths, then their bytes in a row."""
        arrow: Any = sys.modules["pyarrow"]
        compute: Any = sys.modules.get("pyarrow.compute")
        self._validity(path, array)
        full = array.drop_null() if array.null_count else array
        if not len(full):
            return
        _, offsets, data = full.buffers()
        ends = memoryview(offsets).cast("B").cast("q" if large else "i")
        if compute is None:
            lengths = arrow.array([len(x.as_buffer()) for x in full], arrow.int64())
        else:
            lengths = compute.binary_length(full).cast(arrow.int64())
        self._fixed(path + ":size", lengths)
        if data is not None:
            first, last = ends[full.offset], ends[full.offset + len(full)]
            self._feed(path, memoryview(data).cast("B")[first:last])

    def _any(self, path: str, array: Any) -> None:
        """Feed what has no buffers of its own kind here, element by element."""
        for value in array.to_pylist():
            self._feed(path, self._walk.encode(value))
