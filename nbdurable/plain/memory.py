"""Pieces of memory that values lie in, and which values share one.

Invariant: only addresses are looked at. Two values share memory if their pieces overlap and a
write through one of them can be seen through the other.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from array import array
from enum import IntEnum
from typing import Any, NamedTuple

_FULL_READ_ONLY = 0x011C  # PyBUF_FULL_RO: any layout, read only if need be


class Mode(IntEnum):
    """What can be written through a value.

    Two values that can only be read share nothing that could be seen. Two that are TRACKED
    copy before they write (pandas' copy-on-write); who only reads sees what such a one writes.
    """

    READ = 0
    TRACKED = 1
    WRITTEN = 2


class Extent(NamedTuple):
    """The piece of memory that a value lies in: its first byte, and the byte after its last."""

    low: int
    high: int
    mode: Mode
    holder: Any
    number: int
    place: int  # in the order of meeting


class _Buffer(ctypes.Structure):
    _fields_ = (
        ("buf", ctypes.c_void_p), ("obj", ctypes.py_object), ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t), ("readonly", ctypes.c_int), ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p), ("shape", ctypes.POINTER(ctypes.c_ssize_t)),
        ("strides", ctypes.POINTER(ctypes.c_ssize_t)),
        ("suboffsets", ctypes.POINTER(ctypes.c_ssize_t)), ("internal", ctypes.c_void_p),
    )  # fmt: skip


_get = ctypes.pythonapi.PyObject_GetBuffer
_get.argtypes = (ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int)
_release = ctypes.pythonapi.PyBuffer_Release
_release.argtypes = (ctypes.POINTER(_Buffer),)
_release.restype = None


def bounds_of(exporter: Any) -> tuple[int, int, int]:
    """Return the first address, the one after the last, and that of the first element.

    Raises:
        BufferError: The object gives no buffer now.
    """
    found = _Buffer()
    _get(exporter, ctypes.byref(found), _FULL_READ_ONLY)
    try:
        first = found.buf or 0
        if not found.len:
            return first, first, first
        if not found.ndim or not found.strides:
            return first, first + found.len, first
        shape = [found.shape[at] for at in range(found.ndim)]
        strides = [found.strides[at] for at in range(found.ndim)]
        return (*_spread(first, shape, strides, found.itemsize), first)
    finally:
        _release(ctypes.byref(found))


def _spread(first: int, shape: Any, strides: Any, itemsize: int) -> tuple[int, int]:
    """Return where elements lie that are reached by strides."""
    low = high = first
    for size, stride in zip(shape, strides, strict=True):
        if stride < 0:
            low += (size - 1) * stride
        else:
            high += (size - 1) * stride
    return low, high + itemsize


def array_bounds(value: Any) -> tuple[int, int, int]:
    """Return the same as `bounds_of` for a numpy array, whatever its elements are."""
    said = value.__array_interface__
    first: int = said["data"][0]
    if not value.size or not value.itemsize:
        return first, first, first
    strides = said["strides"]
    if strides is None:
        return first, first + value.nbytes, first
    return (*_spread(first, value.shape, strides, value.itemsize), first)


class Memory:
    """Extents as they are met, and the sets of them in which a write can be seen."""

    __slots__ = ("extents",)

    def __init__(self) -> None:
        self.extents: list[Extent] = []

    def add(self, low: int, high: int, mode: Mode, holder: Any, number: int) -> None:
        """Take in where a value lies; what is empty shares nothing."""
        if high > low:
            self.extents.append(Extent(low, high, mode, holder, number, len(self.extents)))

    def array(self, value: Any, number: int, mode: Mode | None = None) -> None:
        """Take in a numpy array."""
        low, high, _ = array_bounds(value)
        if mode is None:
            mode = Mode.READ if _only_read(value) else Mode.WRITTEN
        self.add(low, high, mode, value, number)

    def shared(self) -> list[list[Extent]]:
        """Return the extents that belong together, sets and members in the order of meeting."""
        if len(self.extents) < 2:  # noqa: PLR2004 - one alone shares nothing
            return []
        found: list[list[Extent]] = []
        present: list[Extent] = []
        end = 0
        for one in sorted(self.extents, key=lambda each: (each.low, each.high)):
            if present and one.low >= end:
                found += _visible(present)
                present = []
            end = max(end, one.high) if present else one.high
            present.append(one)
        found += _visible(present)
        return sorted(found, key=lambda together: together[0].place)


def _visible(overlapping: list[Extent]) -> list[list[Extent]]:
    """Return a run of overlapping extents as one set if a write in it can be seen."""
    if len(overlapping) < 2:  # noqa: PLR2004 - as above
        return []
    modes = sorted(one.mode for one in overlapping)
    seen = modes[-1] is Mode.WRITTEN or (modes[-1] is Mode.TRACKED and modes[0] is Mode.READ)
    return [sorted(overlapping, key=lambda each: each.place)] if seen else []


def is_buffer(value: Any) -> bool:
    """Tell whether an object is one of Python's own that give their memory to arrays."""
    return isinstance(value, bytearray | memoryview | array | mmap.mmap)


def _only_read(value: Any) -> bool:
    """Tell whether nobody writes to an array: it is read only, and so is all that it is a view of.

    An array that owns its memory can be made writable again.
    """
    ndarray = sys.modules["numpy"].ndarray
    while not value.flags.writeable:
        base = value.base
        if base is None:
            return False
        if not isinstance(base, ndarray):
            return (isinstance(base, memoryview) and base.readonly) or not is_buffer(base)
        value = base
    return False
