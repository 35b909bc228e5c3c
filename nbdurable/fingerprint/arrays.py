"""numpy arrays and torch tensors to canonical bytes: schema, shape, elements in C order.

Invariant: the library is never imported here; an array that exists has loaded it. Buffers that
are contiguous are hashed where they lie. Floats count by their bits.
"""

from __future__ import annotations

import sys
from typing import Any

from xxhash import xxh3_128

from nbdurable.fingerprint.held import held_by
from nbdurable.fingerprint.values import (
    BIG,
    Encoder,
    Walk,
    bytes_of,
    qualified,
    sequence,
    text_of,
)

_STEP = 32 * 1024 * 1024  # bytes of a strided array that are copied at a time
_BLOCKS = 256
_BLOCK = 65536


def resolve(cls: type) -> Encoder | None:
    """Find the encoder for a numpy or torch class."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        if issubclass(cls, numpy.ndarray):
            plain = cls is numpy.ndarray or cls.__name__ == "memmap"
            return _ndarray if plain else _subclass
        if issubclass(cls, numpy.generic):
            return _scalar
        if issubclass(cls, numpy.dtype):
            return lambda walk, v: b"o" + text_of("numpy.dtype") + _dtype(walk, v)
        if issubclass(cls, numpy.ufunc):
            return lambda walk, v: b"x" + text_of(f"numpy.{v.__name__}") + held_by(walk, v)
        random: Any = sys.modules.get("numpy.random")
        if random is not None:
            if issubclass(cls, random.Generator):
                return lambda walk, v: _state(walk, v, v.bit_generator.state)
            if issubclass(cls, random.RandomState):
                return lambda walk, v: _state(walk, v, v.get_state(legacy=False))
            if issubclass(cls, random.BitGenerator):
                return lambda walk, v: _state(walk, v, v.state)
    torch: Any = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "Tensor"):
        return _torch(torch, cls)
    return None


def _state(walk: Walk, value: Any, state: Any) -> bytes:
    name = text_of(qualified(type(value)))
    return walk.generator(value, lambda w: w.within(lambda: b"o" + name + w.encode(state)))


def buffer(walk: Walk, data: Any, size: int) -> bytes:
    """Hash a contiguous buffer of ``size`` bytes, or blocks of it where sampling will do."""
    if size >= BIG:
        walk.big = True
        if walk.sample:
            return sampled(memoryview(data).cast("B"))
    return b"#" + (xxh3_128(data) if size else xxh3_128()).digest()


def sampled(view: memoryview) -> bytes:
    """Hash blocks spread evenly over a buffer, both ends included."""
    hasher = xxh3_128()
    last = max(len(view) - _BLOCK, 0)
    for at in range(_BLOCKS):
        start = last * at // (_BLOCKS - 1)
        hasher.update(view[start : start + _BLOCK])
    return b"%" + hasher.digest()


def _dtype(walk: Walk, dtype: Any) -> bytes:
    """Write a dtype out: nested fields with names, formats and offsets."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return b"[" + walk.encode(shape) + _dtype(walk, base) + b"]"
    if dtype.names is not None:
        out = [b"{%x:" % dtype.itemsize]
        for name in dtype.names:
            inner, offset, *title = dtype.fields[name]
            out.append(text_of(name) + b"%x:" % offset + _dtype(walk, inner))
            out += [text_of(str(one)) for one in title]
        return b"".join(out) + b"}"
    usual = dtype.kind in "?biufcmMSUO"
    return text_of(dtype.str) + (b"" if usual else text_of(qualified(type(dtype)) + repr(dtype)))


def _ndarray(walk: Walk, array: Any) -> bytes:
    walk.mutable = True
    return walk.node(array, elements)


def elements(walk: Walk, array: Any) -> bytes:
    """Encode an array: dtype, shape and elements."""
    return b"A" + _dtype(walk, array.dtype) + walk.encode(array.shape) + _data(walk, array)


def _data(walk: Walk, array: Any) -> bytes:
    """Encode an array's elements, in C order."""
    dtype = array.dtype
    if dtype.hasobject or dtype.kind == "T":
        flat = array.reshape(-1).tolist() if dtype.names is None else None
        if flat is not None:
            return walk.within(lambda: sequence(walk, b"l", flat))
    if dtype.names is not None:
        return b"".join([_data(walk, array[name]) for name in dtype.names])
    numpy = sys.modules["numpy"]
    if dtype.kind in "fc" and dtype.itemsize // (2 if dtype.kind == "c" else 1) > 8:  # noqa: PLR2004
        return _padded(walk, numpy, array)
    if not array.size or not dtype.itemsize:
        return b"#" + xxh3_128().digest()
    if array.flags.c_contiguous:
        return buffer(walk, array.reshape(-1).view(numpy.uint8), array.nbytes)
    return _strided(walk, numpy, array)


def _strided(walk: Walk, numpy: Any, array: Any) -> bytes:
    """Hash an array that isn't contiguous, some rows at a time."""
    rows = array.shape[0]
    step = max(1, rows * _STEP // array.nbytes)
    if array.nbytes >= BIG:
        walk.big = True
        if walk.sample:
            view = array[:: max(1, rows // _BLOCKS)]
            return b"%" + xxh3_128(numpy.ascontiguousarray(view).view(numpy.uint8)).digest()
    hasher = xxh3_128()
    for at in range(0, rows, step):
        part = numpy.ascontiguousarray(array[at : at + step])
        hasher.update(part.reshape(-1).view(numpy.uint8))
    return b"#" + hasher.digest()


def _padded(walk: Walk, numpy: Any, array: Any) -> bytes:
    """Hash long doubles without the padding bytes, whose content means nothing."""
    if array.dtype.kind == "c":
        return _padded(walk, numpy, array.real) + _padded(walk, numpy, array.imag)
    used = 10 if numpy.finfo(array.dtype).nmant == 63 else array.dtype.itemsize  # noqa: PLR2004
    raw = numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8)
    kept = numpy.ascontiguousarray(raw.reshape(-1, array.dtype.itemsize)[:, :used])
    return buffer(walk, kept.reshape(-1), kept.nbytes)


def _subclass(walk: Walk, array: Any) -> bytes:
    """Encode an instance of a subclass: class, elements and own attributes."""
    walk.mutable = True
    numpy = sys.modules["numpy"]

    def body(w: Walk, v: Any) -> bytes:
        base = v.view(numpy.ndarray)
        if isinstance(v, numpy.ma.MaskedArray):
            mask = elements(w, numpy.ma.getmaskarray(v))
            return b"u" + w.class_of(v) + elements(w, base) + mask + w.encode(v.fill_value)
        state = dict(sorted(getattr(v, "__dict__", {}).items()))
        return b"u" + w.class_of(v) + elements(w, base) + w.encode(state)

    return walk.within(lambda: walk.node(array, body))


def _scalar(walk: Walk, value: Any) -> bytes:
    """Encode a numpy scalar: never equal to a Python number."""
    numpy = sys.modules["numpy"]
    array = numpy.asarray(value)
    if array.dtype.hasobject:
        return walk.within(lambda: b"G" + walk.encode(value.item()))
    if array.dtype.itemsize <= 8:  # noqa: PLR2004
        return b"G" + _dtype(walk, array.dtype) + bytes_of(b"b", value.tobytes())
    return b"G" + _dtype(walk, array.dtype) + _data(walk, array.reshape(-1))


def _torch(torch: Any, cls: type) -> Encoder | None:
    """Find the encoder for a torch class."""
    if issubclass(cls, torch.Tensor):
        return _tensor
    if issubclass(cls, (torch.dtype, torch.device)):
        return lambda _, v: b"x" + text_of(str(v))
    if issubclass(cls, torch.Generator):
        return lambda walk, v: _state(walk, v, v.get_state())
    return None


def _tensor(walk: Walk, tensor: Any) -> bytes:
    """Encode a tensor by dtype, shape, gradient flag and elements, on whatever device it is."""
    torch = sys.modules["torch"]
    walk.mutable = True

    def body(w: Walk, v: Any) -> bytes:
        plain = v.detach()
        if v.layout is not torch.strided:
            plain = plain.to_dense()
        raw = plain.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        head = (qualified(type(v)), str(v.dtype), str(v.layout), bool(v.requires_grad))
        return b"M" + sequence(w, b"t", head) + w.encode(tuple(v.shape)) + _data(w, raw)

    return walk.within(lambda: walk.node(tensor, body))
