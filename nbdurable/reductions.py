"""How some large values are pickled: without the copies that their libraries make.

Invariant: what comes back is what the library's own reduction gives back, unpickled by
the library's own code; only the way there is shorter. No library is imported here.
"""

from __future__ import annotations

import copyreg
import sys
from typing import Any

_PADDED = 1.1  # how much larger than its content a buffer may be


def reduction(value: Any, protocol: int, large: int) -> Any:
    """Give the reduction of `value`, as ``__reduce_ex__`` does; None for its own.

    Args:
        value: What is being pickled.
        protocol: The pickle protocol.
        large: Bytes from which a copy is worth avoiding.
    """
    numpy = sys.modules.get("numpy")
    if numpy is not None and type(value) is numpy.ndarray:
        return _of_numpy(value, protocol, large)
    pandas = sys.modules.get("pandas.core.arrays.arrow.array")
    if pandas is not None and isinstance(value, pandas.ArrowExtensionArray):
        return _of_pandas(value, large)
    return None


def _of_numpy(array: Any, protocol: int, large: int) -> Any:
    """Copy a strided array once, instead of once now and once more at each replay."""
    if array.nbytes < large or array.flags.forc or array.dtype.hasobject:
        return None
    return array.copy(order="C").__reduce_ex__(protocol)


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
