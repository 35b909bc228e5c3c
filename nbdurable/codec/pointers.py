"""Which large buffers of a value say where others lie: a wrong number in one ends the process.

Offsets of Arrow's texts and lists, positions in a dictionary, the index arrays of a sparse
matrix: libraries follow them without a look at where they lead. Others are data, of which a
wrong number is a wrong number.

Invariant: a buffer of Arrow counts as one that leads unless it is known to be data. No
library is imported here.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_NARROW = 2  # bytes: what so few of them count is no place in something large
_HOLD_NUMBERS = frozenset({"numpy", "pandas", "pyarrow", "torch", "nbdurable", "__main__"})
_BY_POSITION = frozenset({"Categorical", "MultiIndex", "SparseArray", "IntIndex", "BlockIndex"})
"""Classes of pandas whose whole numbers are positions."""


class Data:
    """What one value's pickle tells of its buffers, while it is made."""

    __slots__ = ("_at", "_by_position", "_others")

    def __init__(self) -> None:
        self._at: set[int] = set()
        self._by_position = self._others = False

    def meet(self, value: Any, root: str) -> bool:
        """Take note of an object in the value; return whether each of its type is to be met."""
        if root == "pyarrow":
            if not hasattr(value, "buffers"):
                return False
            self._at.update(_data_of(value.type, iter(value.buffers())))
            return True
        known = root in _HOLD_NUMBERS or root in sys.stdlib_module_names
        if not known and not root.startswith("_cython"):  # of which functions are, of any module
            self._others = True  # its whole numbers may be positions in others
        self._by_position |= root == "pandas" and type(value).__name__ in _BY_POSITION
        return False

    def leads(self, buffer: memoryview) -> bool:
        """Tell whether a buffer, of which all is met, may say where something lies."""
        arrow = sys.modules.get("pyarrow")
        if arrow is not None and isinstance(buffer.obj, arrow.Buffer):
            return buffer.obj.address not in self._at
        kind: Any = getattr(buffer.obj, "dtype", None)
        if kind is None or kind.kind not in "iu":
            return False
        if self._by_position:
            return True
        return self._others and kind.itemsize > _NARROW


def _data_of(kind: Any, buffers: Iterator[Any]) -> Iterator[int]:
    """Yield where the data of an array of Arrow lies; it ends where the form is not known.

    The buffers of an array are those of its own, then those of each of its children, see
    `the columnar format <https://arrow.apache.org/docs/format/Columnar.html>`_.
    """
    types = sys.modules["pyarrow"].types
    if isinstance(kind, sys.modules["pyarrow"].BaseExtensionType):
        kind = kind.storage_type
    next(buffers, None)  # which values are there: what counts them writes so many elsewhere
    if types.is_primitive(kind) or types.is_decimal(kind) or types.is_fixed_size_binary(kind):
        yield from _address(next(buffers, None))
    elif _is_one_of(kind, types, "string", "large_string", "binary", "large_binary"):
        next(buffers, None)
        yield from _address(next(buffers, None))
    elif _is_one_of(kind, types, "list", "large_list", "fixed_size_list"):
        if not types.is_fixed_size_list(kind):
            next(buffers, None)
        yield from _data_of(kind.value_type, buffers)
    elif types.is_struct(kind):
        for at in range(kind.num_fields):
            yield from _data_of(kind.field(at).type, buffers)


def _address(buffer: Any) -> Iterator[int]:
    if buffer is not None:
        yield buffer.address


def _is_one_of(kind: Any, types: Any, *names: str) -> bool:
    return any(getattr(types, f"is_{name}")(kind) for name in names)
