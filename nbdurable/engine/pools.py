"""Which place an executor option means, and what is asked of it.

Invariant: nothing is started here; a pool begins its work with the first call.
"""

from __future__ import annotations

import importlib.util
import weakref
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from nbdurable.errors import UsageError
from nbdurable.executors.futures import Futures

from .worker import perform

if TYPE_CHECKING:
    from nbdurable.executors.remote import Pool

_given: weakref.WeakKeyDictionary[Any, Pool] = weakref.WeakKeyDictionary()
"""The pools of executors that the user has made."""


def pool_of(choice: object) -> Pool | None:
    """Return where an executor option lets bodies run; None for the kernel.

    Raises:
        UsageError: It can't be had here.
    """
    if choice is None or choice == "threads":
        return None
    if choice == "process":
        from nbdurable.executors.processes import processes  # noqa: PLC0415 - who uses none doesn't pay for loky

        return processes(perform)
    if isinstance(choice, Executor):
        pool = _given.get(choice)
        if pool is None:
            pool = _given[choice] = Futures(perform, choice)
        return pool
    return _cluster(choice)


def _cluster(choice: object) -> Pool:
    if importlib.util.find_spec("distributed") is None:
        raise UsageError(
            'executor="dask" needs Dask, which is not installed: pip install "nbdurable[dask]"'
        )
    from nbdurable.executors.clusters import cluster  # noqa: PLC0415 - who uses no Dask doesn't pay for it

    return cluster(perform, None if choice == "dask" else choice)
