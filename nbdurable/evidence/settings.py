"""Settings of the process that a body used: random generators, decimal's context, the environment.

Invariant: only what the step's own code names is looked at; an environment variable is kept
as a digest, never as its value.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nbdurable.records import Part

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nbdurable.fingerprint import Covered

SETTING, MOVED = "setting", "moved generator"
"""Kinds of parts: a setting that was used, a seeded generator that the body moved."""

SETTING_KINDS: Final = frozenset({SETTING, MOVED})

_DECIMAL = "decimal's context"
_RANDOM, _NUMPY = "random", "numpy.random"
_DRAWING = frozenset(
    {"random", "choice", "choices", "shuffle", "randint", "randrange", "sample", "uniform", "gauss",
     "rand", "randn", "normal", "permutation", "standard_normal", "normalvariate", "getrandbits",
     "betavariate", "expovariate", "triangular", "binomial", "poisson"}
)  # fmt: skip
_RELEVANT = _DRAWING | {"decimal", "Decimal", "getcontext", "environ", "getenv"}
_SEEDS = re.compile(r"\bseed\s*\(")
_texts: dict[tuple[str, int, str], bool] = {}


class Settings:
    """How things were when a body began."""

    __slots__ = ("_covered", "_states")

    def __init__(self, covered: Covered) -> None:
        self._covered = covered
        draws = not _DRAWING.isdisjoint(covered.names)
        self._states = _states() if draws else {}

    def parts(self) -> list[Part]:
        """Return what a body that has ended used and moved."""
        found = []
        if self._states:
            now = _states()
            moved = [name for name, state in self._states.items() if now.get(name) != state]
            found += [Part(MOVED, name, b"") for name in moved]
        names = self._covered.names
        if not names.isdisjoint({"decimal", "Decimal", "getcontext"}):
            found.append(Part(SETTING, _DECIMAL, _now(_DECIMAL)))
        if not names.isdisjoint({"environ", "getenv"}):
            found += [Part(SETTING, name, _now(name)) for name in self._covered.variables]
        return found


def settings_of(code: Covered | None) -> Settings | None:
    """Return what keeps how things are now; None where the code names no setting."""
    return None if code is None or code.names.isdisjoint(_RELEVANT) else Settings(code)


class ToldSetting(NamedTuple):
    """What is told of a setting: how it is now, its name in words, a sentence about a step."""

    now: Part
    name: str
    text: str


def told_settings(parts: Iterable[Part]) -> Iterator[ToldSetting]:
    """Yield what is told of settings, with braces in the place of the step."""
    for part in parts:
        if part.kind == MOVED:
            yield ToldSetting(
                part,
                f"the seeded generator of {part.name}",
                f"{{}} moved the seeded generator of {part.name}, which stays where it is when "
                f"{{}} is replayed",
            )
        elif part.kind == SETTING and (state := _now(part.name)) != part.state:
            what = part.name if part.name == _DECIMAL else f"the environment's {part.name}"
            now = Part(SETTING, part.name, state)
            yield ToldSetting(now, what, f"{what}, which {{}} used, has changed since")


def is_setting_now(part: Part) -> bool:
    """Tell whether a setting is as a part says; a generator that was moved always is."""
    return part.kind == MOVED or _now(part.name) == part.state


def _now(name: str) -> bytes:
    """Return a setting as it is now."""
    if name == _DECIMAL:
        module: Any = sys.modules.get("decimal")
        if module is None:
            return b""
        context = module.getcontext()
        shown = (context.prec, context.rounding, context.Emin, context.Emax, context.clamp)
        return repr(shown).encode()
    value = os.environ.get(name)
    if value is None:
        return b""
    text = value.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=8, person=b"environment").digest()


def _states() -> dict[str, bytes]:
    """Return the states of the generators that the user has seeded."""
    found: dict[str, bytes] = {}
    plain: Any = sys.modules.get("random")
    if plain is not None and _main_seeds():
        found[_RANDOM] = hashlib.blake2b(repr(plain.getstate()).encode()).digest()
    legacy: Any = sys.modules.get("numpy.random")
    if legacy is not None:
        state = legacy.get_state(legacy=False)
        generator = getattr(legacy.mtrand, "_rand", None)
        bits = getattr(generator, "_bit_generator", None)
        # Seeding in the old way leaves no seed sequence behind.
        if getattr(bits, "seed_seq", bits) is None:
            found[_NUMPY] = hashlib.blake2b(repr(state).encode()).digest()
    return found


def unseeded() -> frozenset[str]:
    """Return the generators, of `random` and of numpy's old way, that the user has not seeded."""
    return frozenset({_RANDOM, _NUMPY}) - _states().keys()


def _main_seeds() -> bool:
    """Tell whether the main module's text, or a cell that has run, seeds a generator."""
    main: Any = sys.modules.get("__main__")
    cells = vars(main).get("In") if main is not None else None
    path = str(vars(main).get("__file__") or "") if main is not None else ""
    key = (path, len(cells), str(cells[-1])) if isinstance(cells, list) and cells else (path, 0, "")
    known = _texts.get(key)
    if known is None:
        text = "\n".join(map(str, cells)) if isinstance(cells, list) else _read(path)
        known = _texts[key] = _SEEDS.search(text) is not None
    return known


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8") if path else ""
    except (OSError, ValueError):
        return ""
