"""What objects do when steps use them: remembered for each code, so that calls are found again.

Invariant: a call keeps the identity under which it was claimed. Once a code is seen to move an
attribute by using its object, later calls are claimed without that attribute, and a row says
for each call that was claimed with it how it is called without.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from nbdurable.fingerprint import NOTHING_USED, Attribute
from nbdurable.handles.call_identity import call_id
from nbdurable.records import digest_of
from nbdurable.steps.attempts import parts_of
from nbdurable.steps.uses import InUse, Use
from nbdurable.store import remember
from nbdurable.store.rows import FormerCallRow, UsedAttributeRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from nbdurable.commit.ledger import Ledger
    from nbdurable.commit.state import State
    from nbdurable.fingerprint import Fingerprinter, Print, Used
    from nbdurable.handles.handle import StepHandle
    from nbdurable.handles.scope import Scope
    from nbdurable.records import Version
    from nbdurable.steps.options import StepOptions
    from nbdurable.store import Batch
    from nbdurable.store.rows import RememberedRow

    from .contents import Bases

_MOST_NAMED = 3
_MOST_CLAIMED = 1000
"""Calls of one code that are renamed when an attribute is learned of: the last so many."""


class Claim(NamedTuple):
    """What is asked for: a step and its inputs, as far as they make the call's identity."""

    where: Scope
    function: Callable[..., Any]
    options: StepOptions
    called: str
    code: Print | None
    code_digest: bytes
    inputs: Print
    used: Used = NOTHING_USED
    moment: int = 0
    bases: Bases = ()
    pins: bytes = b""

    def parts(self) -> dict[str, bytes] | None:
        """Return what the code is made of, by name; None for a step with `version=`."""
        return parts_of(self.code, self.bases)

    def coded(self, digest: bytes) -> bytes:
        """Return a code's digest together with what else belongs to it.

        That is what the globals were that it writes and reads, and pinned packages.
        """
        if self.pins:
            digest = digest_of(digest, self.pins)
        if not self.bases:
            return digest
        return digest_of(
            digest, *[one for name, base in self.bases for one in (name.encode(), base)]
        )


class _Claimed(NamedTuple):
    """A call that was claimed in this execution, and what of it can be looked at again."""

    handle: StepHandle[Any]
    claim: Claim
    uses_arguments: bool


class Remembered:
    """Rows to commit that nobody waits for."""

    def __init__(self, rows: Sequence[RememberedRow], ledger: Ledger) -> None:
        self._rows = rows
        self._ledger = ledger

    def write(self, batch: Batch) -> None:
        """Sign the rows and add them."""
        for row in self._rows:
            remember(batch, self._ledger.store, row)

    def committed(self) -> None:
        """Nobody waits."""

    def failed(self, error: BaseException) -> None:
        """Nobody waits: the next outcome fails too."""


class Usage:
    """One execution's knowledge of objects that change by being used."""

    def __init__(
        self,
        state: State,
        ledger: Ledger,
        prints: Fingerprinter,
        version_of: Callable[[bytes, tuple[Any, ...]], Version | None],
    ) -> None:
        self._ledger = ledger
        self._index = state.index
        self._prints = prints
        self._live = state.live
        self._version_of = version_of
        self._lock = threading.RLock()
        self._in_use = InUse()
        self._claimed: dict[bytes, list[_Claimed]] = {}
        self._scopes: dict[bytes, Scope] = {}
        self._generations: dict[bytes, list[Used]] = {
            key: [{Attribute(*one): texts for one, texts in used.items()} for used in generations]
            for key, generations in _cumulative(state.index.used_attributes)
        }

    @property
    def knows_any(self) -> bool:
        """Whether any code is known to move something by using it."""
        return bool(self._generations)

    @property
    def moment(self) -> int:
        """A moment that no body which ends from now on has ended before."""
        return self._in_use.moment

    def used_by(self, function: Callable[..., Any], options: StepOptions) -> Used:
        """Return the attributes that a step's code moves by using their objects."""
        if not self._generations:
            return NOTHING_USED
        generations = self._generations.get(self._prints.key(function, options))
        return generations[-1] if generations else NOTHING_USED

    # --- what steps see move -------------------------------------------------------

    def use_of(self, handle: StepHandle[Any], claim: Claim) -> Use | None:
        """Return what watches a step's objects while its body runs; None if it has none."""
        code = claim.code
        if claim.inputs.inputs is None and (code is None or code.inputs is None):
            return None
        prints = tuple(
            one for one in (claim.inputs, code) if one is not None and one.inputs is not None
        )
        key = self._prints.key(claim.function, claim.options)
        claimed = _Claimed(handle, claim, claim.inputs.inputs is not None)
        with self._lock:
            claims = self._claimed.setdefault(key, [])
            claims.append(claimed)
            self._scopes[handle.call_id] = claim.where
            generations = self._generations.get(key)
            if generations and generations[-1] is not claim.used:
                # It was learned while this call was being claimed.
                rows = self._renamed(claimed, generations[-1])
                self._ledger.journal.enqueue(Remembered(rows, self._ledger), kick=False)
            if len(claims) > _MOST_CLAIMED:
                claims[:] = [one for one in claims if not _is_let_go(one)][-_MOST_CLAIMED:]
        return Use(self, self._in_use, key, prints, claim.function, claim.moment)

    def known(self, key: bytes, classes: dict[str, type]) -> frozenset[Attribute]:
        """Return the attributes of these classes that this code was seen to move by use."""
        generations = self._generations.get(key)
        return self._of_classes(generations[-1], classes) if generations else frozenset()

    def _of_classes(self, used: Used, classes: dict[str, type]) -> frozenset[Attribute]:
        texts = {name: self._prints.text_key(cls) for name, cls in classes.items()}
        return frozenset(one for one, known in used.items() if texts.get(one.cls) in known)

    def learn(self, key: bytes, attributes: dict[Attribute, type]) -> None:
        """Take in attributes that were seen to change by being used, and rename the calls."""
        with self._lock:
            generations = self._generations.setdefault(key, [])
            before = generations[-1] if generations else NOTHING_USED
            texts = {one: self._prints.text_key(cls) for one, cls in attributes.items()}
            new = {one: text for one, text in texts.items() if text not in before.get(one, ())}
            if not new:
                return
            more = {one: before.get(one, frozenset()) | {text} for one, text in new.items()}
            used = {**before, **more}
            generations.append(used)
            rows: list[RememberedRow] = [
                UsedAttributeRow(key, len(generations), *one, text=text)
                for one, text in new.items()
            ]
            claims = sorted(self._claimed.get(key, ()), key=lambda one: one.handle.place)
            for claimed in claims:
                rows += self._renamed(claimed, used)
            self._ledger.journal.enqueue(Remembered(rows, self._ledger), kick=False)
        names = _listed(sorted({f"`{one}`" for one in new}))
        step = claims[0].handle.name if claims else "a step"
        self._ledger.observers.say(
            f"{step}: {names} changes by being used, so it is left out of the comparison from "
            f"now on; the rest counts"
        )

    def _renamed(self, claimed: _Claimed, used: Used) -> list[FormerCallRow]:
        """Return the row that says how a call is called without some attributes."""
        handle, claim, uses_arguments = claimed
        if handle.durable and uses_arguments and handle.life.work is None:
            return []
        code = claim.code_digest
        if claim.code is not None and claim.code.inputs is not None:
            if not self._differs_by(claim.code, used):
                return []
            code = claim.coded(claim.code.inputs.digest_without(used))
        inputs, called = claim.inputs.digest, claim.called
        if claim.inputs.inputs is not None:
            if not self._differs_by(claim.inputs, used):
                return []
            inputs = claim.inputs.inputs.digest_without(used)
        if "#" in called:
            called = self._prints.called(claim.function, claim.options, used)
        call = handle.call_id
        if (called, inputs) != (claim.called, claim.inputs.digest):
            occurrences = claim.where.occurrences
            count, strand = occurrences.get((called, inputs), (0, claim.where.strand()))
            occurrences[called, inputs] = (count + 1, strand)
            call = call_id(claim.where.namespace, called, inputs, count)
        if (call, code) == (handle.call_id, handle.code):
            return []
        saved = handle.call_id, handle.code
        self._index.former_calls.setdefault((call, code), []).append(saved)
        return [FormerCallRow(call, code, *saved, execution=self._ledger.execution)]

    def _differs_by(self, made: Print, used: Used) -> bool:
        """Tell whether inputs are what they were, some attributes left out."""
        assert made.inputs is not None
        before, now = made.inputs.pieces(before=True), made.inputs.pieces(before=False)
        known = self._of_classes(used, {**before.classes, **now.classes})
        differing = before.differing(now, known)
        return differing is not None and differing <= known

    # --- a call is found again ------------------------------------------------------

    def resolve(
        self,
        identity: bytes,
        claim: Claim,
        upstream: tuple[Any, ...],
    ) -> tuple[bytes, bytes]:
        """Return the call and the code under which what is asked for is saved, or is claimed."""
        own = identity, claim.code_digest
        if self._is_there(own, upstream, claim.where):
            return own
        former = self._index.former_calls.get(own, ())
        for pair in reversed(former):
            if self._is_there(pair, upstream, claim.where):
                return pair
        for pair in self._older(claim):
            if self._is_there(pair, upstream, claim.where):
                return pair
        return former[-1] if former else own

    def _older(self, claim: Claim) -> Iterator[tuple[bytes, bytes]]:
        """Yield how the call was claimed before the last attributes were learned of."""
        generations = self._generations.get(self._prints.key(claim.function, claim.options), ())
        for used in (*generations[-2::-1], NOTHING_USED) if generations else ():
            code = claim.code_digest
            if claim.code is not None and claim.code.inputs is not None:
                code = claim.coded(claim.code.inputs.digest_without(used))
            inputs, called = claim.inputs.digest, claim.called
            if claim.inputs.inputs is not None:
                inputs = claim.inputs.inputs.digest_without(used)
            if "#" in called:
                called = self._prints.called(claim.function, claim.options, used)
            count, _ = claim.where.occurrences.get((called, inputs), (0, 0))
            if (called, inputs) == (claim.called, claim.inputs.digest):
                count -= 1  # it has been counted already
            pair = call_id(claim.where.namespace, called, inputs, count), code
            yield pair
            yield from reversed(self._index.former_calls.get(pair, ()))

    def _is_there(self, pair: tuple[bytes, bytes], upstream: tuple[Any, ...], where: Scope) -> bool:
        """Tell whether a call has an outcome, was lost or left by a decision, or is under way."""
        call, code = pair
        found = self._live.get(call)
        if found is not None:
            # It is under way: for an earlier attempt of this very body, or for another call.
            return self._scopes.get(call, where) is not where
        version = self._version_of(code, upstream)
        saved = self._index.checkpoints
        if version is None:
            return saved.knows(call) or self._index.lost((call, bytes(16)), code)
        identity = call, version.id
        return saved.get(identity) is not None or self._index.lost(identity, code)


def _listed(names: list[str]) -> str:
    """Join a few names; of many say how many more there are."""
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _is_let_go(claimed: _Claimed) -> bool:
    return claimed.uses_arguments and claimed.handle.durable


_Generation = dict[tuple[str, str, str, str], set[bytes]]


def _cumulative(
    generations: dict[bytes, list[_Generation]],
) -> Iterator[tuple[bytes, list[dict[tuple[str, str, str, str], frozenset[bytes]]]]]:
    """Yield each code's generations, each with what was known before it."""
    for key, new in generations.items():
        known: dict[tuple[str, str, str, str], frozenset[bytes]] = {}
        found = []
        for one in new:
            more = {name: known.get(name, frozenset()) | texts for name, texts in one.items()}
            known = {**known, **more}
            found.append(known)
        yield key, found
