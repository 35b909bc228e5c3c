"""How some values are pickled: large ones without the copies that their libraries make.

Invariant: what comes back is what the library's own reduction gives back, where it has one;
only the way there is shorter. No library is imported here.
"""

from __future__ import annotations

import copyreg
import sys
from concurrent.futures import Future
from typing import Any

from nbdurable.pickled import frozen

_PADDED = 1.1  # how much larger than its content a buffer may be


def reduction(value: Any, protocol: int, large: int) -> Any:
    """Return the reduction of `value`, as ``__reduce_ex__`` does; None for its own.

    Args:
        value: What is being pickled.
        protocol: The pickle protocol.
        large: Bytes from which a copy is worth avoiding.
    """
    numpy = sys.modules.get("numpy")
    if numpy is not None and type(value) is numpy.ndarray:
        return _of_numpy(value, protocol, large)
    torch = sys.modules.get("torch")
    if torch is not None and numpy is not None and type(value) is torch.Tensor:
        return _of_torch(torch, value, large)
    if isinstance(value, Future) and value.done():
        return _of_future(value)
    pandas = sys.modules.get("pandas.core.arrays.arrow.array")
    if pandas is not None and isinstance(value, pandas.ArrowExtensionArray):
        return _of_pandas(value, large)
    return None


def _of_numpy(array: Any, protocol: int, large: int) -> Any:
    """Copy a strided array once, instead of once now and once more at each replay."""
    if array.nbytes < large or array.flags.forc or array.dtype.hasobject:
        return None
    return array.copy(order="C").__reduce_ex__(protocol)


def _of_future(future: Future[Any]) -> Any:
    """Leave out a finished future's lock and who waited for it: that is over."""
    over = {"_condition", "_waiters", "_done_callbacks"}
    state = {name: value for name, value in vars(future).items() if name not in over}
    return future_of, (type(future),), state


@frozen("future")
def future_of(kind: type[Future[Any]]) -> Future[Any]:
    """Make a future whose state is set next, without the ``__init__`` of its class."""
    made = kind.__new__(kind)
    Future.__init__(made)
    return made


def _of_pandas(array: Any, large: int) -> Any:
    """Leave an Arrow column in its chunks, which pandas would copy into one.

    Not where chunks are parts of something larger: all of that would be saved with them.
    """
    chunks = array._pa_array.chunks  # noqa: SLF001 - the name in the state that pandas takes
    saved = sum(chunk.get_total_buffer_size() for chunk in chunks)
    if array.nbytes < large or saved > _PADDED * array.nbytes:
        return None
    state = {**vars(array), "_pa_array": chunks}
    if "_cache" in state:
        state["_cache"] = {}  # can be computed again
    return copyreg.__newobj__, (type(array),), state  # type: ignore[attr-defined] # untyped


def _of_torch(torch: Any, tensor: Any, large: int) -> Any:
    """Return a dense tensor's own bytes, to be mapped; torch would save its whole storage in-band.

    What more there is to a tensor than its elements is left to torch.
    """
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.is_nested or tensor.is_quantized:
        return None
    if getattr(tensor, "has_names", bool)():  # which not every version has
        return None
    if tensor.is_conj() or tensor.is_neg():
        return None
    if vars(tensor) or tensor._backward_hooks or tensor.untyped_storage().nbytes() < large:  # noqa: SLF001 - what torch's own reduction looks at
        return None
    moves = [
        (stride, size)
        for stride, size in zip(tensor.stride(), tensor.shape, strict=True)
        if size != 1
    ]
    if any(stride == 0 for stride, _ in moves) or not tensor.numel():
        return None  # one element stands for many; or there is none
    bare = tensor.detach()
    if not _is_dense(moves):
        bare = bare.contiguous()
    flat = bare.as_strided((bare.numel(),), (1,)).view(torch.uint8).numpy()
    said = (tensor.dtype, tuple(tensor.shape), bare.stride(), tensor.requires_grad)
    return tensor_of, (flat, *said)


def _is_dense(moves: list[tuple[int, int]]) -> bool:
    """Tell whether strides and sizes reach each place of one piece of memory, once."""
    length = 1
    for stride, size in sorted(moves):
        if stride != length:
            return False
        length *= size
    return True


@frozen("tensor")
def tensor_of(
    data: Any,
    dtype: Any,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    requires_grad: bool,  # noqa: FBT001 - pickle gives it by its position
) -> Any:
    """Make a saved tensor again, over the bytes themselves."""
    flat = sys.modules["torch"].frombuffer(data, dtype=dtype)  # its dtype has imported torch
    return flat.as_strided(shape, strides).requires_grad_(requires_grad)
