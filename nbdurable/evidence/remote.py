"""Evidence of a body that ran in another process, taken into the kernel's own record of it.

Invariant: what a worker saw is judged here, by the kernel's modules and the files that it
sees; code that the step's fingerprint is of is left out, as for a body of this process.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from nbdurable.fingerprint import place_of

from . import digests
from .recorder import Met, Ran

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType

    from .recorder import Recorder


def merge_files(recorder: Recorder, files: Iterable[tuple[Any, ...]]) -> None:
    """Take in files that a worker's body used: name, path, stat, state before, use."""
    for name, path, first, before, use in files:
        met = recorder.files.get(name)
        if met is None:
            stat = None if first is None else digests.Stat(*first)
            met = recorder.files[name] = Met(path, stat, named=False)
        if met.before is None and before is not None:
            met.before = digests.State(*before)
        met.use |= use


def merge_codes(
    recorder: Recorder, codes: Iterable[tuple[CodeType, str, str | None, tuple[str, str] | None]]
) -> None:
    """Take in code that a worker's body ran: code, module, its file, the class it is of."""
    for code, module, file, owner in codes:
        if not recorder.covers(place_of(code)):
            space = _space(module, file)
            recorder.codes[id(code)] = Ran(code, space, None if owner is None else _class(*owner))


def _space(module: str, file: str | None) -> dict[str, Any]:
    found = sys.modules.get(module)
    return vars(found) if found is not None else {"__name__": module, "__file__": file}


def _class(module: str, qualname: str) -> type | None:
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, type) else None
