"""now, uuid4, rng: what changes from pass to pass, recorded once and replayed.

Each is a step that runs in place. Without arguments it is matched by its position
among its equals; `name=` sets one apart.
"""

from __future__ import annotations

import random
import secrets
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nbdurable.errors import NotInRunError, UsageError
from nbdurable.handles import scope
from nbdurable.steps.options import StepOptions

if TYPE_CHECKING:
    from collections.abc import Callable

_SEED_BITS = 128


def now(*, name: str | None = None) -> datetime:
    """Return the time (UTC) at which this was first reached.

    Raises:
        NotInRunError: No run is active here.
        UsageError: The same call came from another task or thread: give it a `name`.
    """
    run = _run("now()")
    value: datetime = _recorded("now", name, lambda: datetime.fromtimestamp(run.time(), UTC))
    return value


def uuid4(*, name: str | None = None) -> uuid.UUID:
    """Return a random id, the same one on every pass.

    Raises:
        NotInRunError: No run is active here.
        UsageError: The same call came from another task or thread: give it a `name`.
    """
    _run("uuid4()")
    value: uuid.UUID = _recorded("uuid4", name, uuid.uuid4)
    return value


def rng(*, name: str | None = None) -> random.Random:
    """Return a random number generator with a recorded seed: the same draws on every pass.

    Draw from it in the cell's own code; a step gets its own, or a seed as an argument.

    Raises:
        NotInRunError: No run is active here.
        UsageError: The same call came from another task or thread: give it a `name`.
    """
    _run("rng()")
    return random.Random(_recorded("rng", name, lambda: secrets.randbits(_SEED_BITS)))  # noqa: S311


def _run(operation: str) -> Any:
    where = scope.current.get()
    if where is None:
        raise NotInRunError(operation)
    return where.run


def _recorded(kind: str, name: str | None, function: Callable[[], Any]) -> Any:
    if name is not None and (not isinstance(name, str) or not name.strip()):
        raise UsageError(f"{kind}(name={name!r}): give a text that is not empty")
    where = scope.current.get()
    assert where is not None
    options = StepOptions(name=name or kind, version="recorded", named=True)
    return where.run.calls.call(where, function, (), {}, options)
