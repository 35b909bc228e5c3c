"""A namespace written out so that two processes can be compared: values, links, what is around.

Written apart from the product: what it takes for equal is no reason to take it for equal here.
"""

import hashlib
import itertools
import logging
import os
import random
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

_DEEPEST = 12


def described(value):
    """Write a value out, objects that occur twice by their numbers."""
    return _written(value, {}, 0)


def _written(value, memo, depth):  # noqa: PLR0912 - one branch a kind of value
    if depth > _DEEPEST:
        return "..."
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return f"{type(value).__name__}:{value!r}"
    if id(value) in memo:
        return f"#{memo[id(value)][0]}"
    memo[id(value)] = len(memo), value  # held, so that no other object gets its identity

    def inner(one):
        return _written(one, memo, depth + 1)

    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, list | tuple):
        return f"{kind}[{', '.join(map(inner, value))}]"
    if isinstance(value, dict):
        return f"{kind}{{{', '.join(f'{inner(k)}: {inner(v)}' for k, v in value.items())}}}"
    if isinstance(value, set | frozenset):
        return f"{kind}({', '.join(sorted(_written(one, {}, depth + 1) for one in value))})"
    if isinstance(value, np.ndarray):
        content = (
            [inner(one) for one in value.ravel().tolist()]
            if value.dtype.hasobject
            else (hashlib.sha1(np.ascontiguousarray(value).tobytes()).hexdigest())
        )
        return f"array({value.dtype}, {value.shape}, {value.flags.writeable}, {content})"
    if isinstance(value, pd.DataFrame):
        columns = [inner(value[name]) for name in value.columns]
        return f"frame({list(value.columns)}, {inner(value.index)}, {columns})"
    if isinstance(value, pd.Series):
        return f"series({value.dtype}, {value.name!r}, {list(value)!r}, {inner(value.index)})"
    if isinstance(value, pd.Index):
        return f"index({value.dtype}, {list(value)!r}, {value.names})"
    if isinstance(value, np.random.Generator):
        return f"generator({value.bit_generator.state})"
    if isinstance(value, np.random.RandomState):
        return f"state({inner(value.get_state(legacy=False))})"
    if isinstance(value, random.Random):
        return f"random({hashlib.sha1(repr(value.getstate()).encode()).hexdigest()})"
    if isinstance(value, types.ModuleType):
        return f"module {value.__name__}"
    if isinstance(value, types.FunctionType):
        cells = [inner(one.cell_contents) for one in value.__closure__ or ()]
        kept = inner(value.__defaults__), inner(dict(vars(value)))
        return f"function {value.__qualname__}({value.__code__.co_code.hex()}, {cells}, {kept})"
    if isinstance(value, type):
        data = {
            name: held
            for name, held in vars(value).items()
            if not name.startswith("__") and not callable(held)
            and not isinstance(held, classmethod | staticmethod | property)
        }  # fmt: skip
        return (
            f"class {value.__qualname__}({inner(data) if value.__module__ == '__main__' else ''})"
        )
    state = getattr(value, "__dict__", None)
    if state is not None:
        return f"{kind}({inner(dict(sorted(state.items())))})"
    return f"{kind}({value!r})"


def links(space):
    """Return the pairs of names that share an object that can change, or memory."""
    found = []
    for (one, first), (other, second) in itertools.combinations(sorted(space.items()), 2):
        if isinstance(first, types.ModuleType | type | types.FunctionType):
            continue
        shared = _objects(first).keys() & _objects(second).keys()
        if shared:
            found.append(f"{one} and {other} share {len(shared)}")
        elif any(np.shares_memory(a, b) for a in _arrays(first) for b in _arrays(second)):
            found.append(f"{one} and {other} share memory")
    return found


def _objects(value, depth=0, found=None):
    found = {} if found is None else found
    mutable = isinstance(value, list | dict | set | np.ndarray | pd.DataFrame | pd.Series)
    mutable = mutable or (
        type(value).__module__ == "__main__" and not isinstance(value, type | types.FunctionType)
    )
    if id(value) in found or depth > _DEEPEST:
        return found
    if mutable:
        found[id(value)] = value
    if isinstance(value, list | tuple | set | frozenset):
        for one in value:
            _objects(one, depth + 1, found)
    elif isinstance(value, dict):
        for one in value.values():
            _objects(one, depth + 1, found)
    elif type(value).__module__ == "__main__" and hasattr(value, "__dict__"):
        for one in vars(value).values():
            _objects(one, depth + 1, found)
    return found


def _arrays(value):
    return [one for one in _objects(value).values() if isinstance(one, np.ndarray)]


def around():
    """Write out what is the process's own."""

    def digest(value):
        return hashlib.sha1(repr(value).encode()).hexdigest()

    mpl = sys.modules.get("matplotlib")
    return {
        "random": digest(random.getstate()),
        "numpy.random": digest(
            {k: str(v) for k, v in np.random.get_state(legacy=False)["state"].items()}  # noqa: NPY002
        ),
        "environ": {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("NBDURABLE", "PYTEST", "_", "MPL"))
        },
        "cwd": str(Path.cwd()),
        "path": sys.path[:],
        "printing": {k: repr(v) for k, v in np.get_printoptions().items()},
        "rows": pd.get_option("display.max_rows"),
        "columns": pd.get_option("display.max_columns"),
        "filters": [repr(one) for one in warnings.filters if one[0] != "default"][:5],
        "logging": [logging.getLogger().level, logging.getLogger("own").level],
        "rcParams": digest(dict(mpl.rcParams)) if mpl is not None else "",
    }
