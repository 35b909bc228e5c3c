"""What the first kernel of a notebook began with, kept in its run, and begun with again.

Invariant: in one process entropy is settled once, by the pass that begins first; a later one
only keeps it.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Final

from nbdurable.errors import CodecError
from nbdurable.records import digest_of

from . import ambient
from .record import Kept, Ran

if TYPE_CHECKING:
    from .passes import Pass

_CODE: Final = digest_of(b"what the first kernel began with")
_settled: list[bytes] = []


def begin_alike(one: Pass, *, new: bool = False) -> None:
    """Let this kernel draw what the run's first kernel drew, or keep what this one begins with.

    Args:
        one: The pass.
        new: Whether to draw anew.

    Raises:
        StoreError: It can't be read or written.
    """
    with one.open() as store:
        found = one.found(store, _CODE)
        if found and not _settled:
            try:
                (given,) = one.kept(store, found[0]).groups
                ambient.set_entropy(ambient.Entropy(*given))
            except (CodecError, ValueError, TypeError):
                found = []  # what isn't ours is as if it weren't there
        if new and _settled:
            ambient.set_entropy(ambient.Entropy(secrets.token_bytes(16), {}))
        settled = ambient.entropy()
        _settled[:] = [settled.seed]
        if not found or new:
            kept = Kept(groups=(tuple(settled),))
            label = "what the first kernel drew from"
            one.save(store, Ran(label, _CODE, time.time(), 0.0, "new", kept=kept), wait=True)
