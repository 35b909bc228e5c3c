"""The replay index: what one run has saved, in memory, by identity.

Invariant: built only from committed rows, in commit order; it verifies a
signature before it lets go of a payload.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nbdurable.codec.signing import signature_holds
from nbdurable.errors import UntrustedCheckpointError
from nbdurable.labels import printable
from nbdurable.records import (
    NOBODY,
    NOT_SAVED,
    Accepted,
    Checkpoint,
    Decision,
    Kind,
    Part,
    Placed,
    Redone,
    Renamed,
    Save,
)

from .heads import SIGNATURE_BYTES
from .packed import Identity, Saved

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from .rows import AttemptEndRow, StartRow

Member = tuple[bytes, bytes, bytes]
"""(call, version, code) of a branch, by which a decision is found again"""


def checkpoint_message(store: str, checkpoint: Checkpoint) -> bytes:
    """Return what a checkpoint's signature covers: everything that replay relies on.

    Of each large buffer that is its length and its digest. The numbers come first, then
    the length of each other field, then those fields: no two checkpoints have one message.
    """
    fields = (
        checkpoint.call,
        checkpoint.version,
        checkpoint.code,
        store.encode("ascii"),
        checkpoint.namespace,
        checkpoint.kind.encode("utf-8", "surrogatepass"),
        checkpoint.name.encode("utf-8", "surrogatepass"),
        checkpoint.label.encode("utf-8", "surrogatepass"),
        checkpoint.arguments.encode("utf-8", "surrogatepass"),
        checkpoint.payload,
        checkpoint.pieces,
        checkpoint.output.encode("utf-8", "surrogatepass"),
        checkpoint.base,
        checkpoint.code_evidence,
        checkpoint.file_evidence,
    )
    head = _CHECKPOINT.pack(
        b"checkpoint",
        checkpoint.number,
        checkpoint.cause,
        checkpoint.execution,
        checkpoint.attempt,
        checkpoint.started,
        checkpoint.seconds,
        *map(len, fields),
    )
    return head + b"".join(fields)


def decision_message(store: str, decision: Decision) -> bytes:
    """Return what a decision's signature covers, laid out as a checkpoint's."""
    fields = (
        decision.key,
        decision.winner,
        store.encode("ascii"),
        pack(decision.branches),
        pack(decision.losers),
        decision.label.encode("utf-8", "surrogatepass"),
        decision.winner_label.encode("utf-8", "surrogatepass"),
    )
    lengths = map(len, fields)
    clock = decision.seconds, decision.place, decision.decided
    head = _DECISION.pack(b"decision", decision.number, decision.execution, *clock, *lengths)
    return head + b"".join(fields)


DECIDED = (
    "key", "branches", "winner", "number", "t.execution", "losers", "t.signature", "seconds",
    "place", "label", "winner_label", "decided",
)  # fmt: skip
"""The columns of `decision_of`, in its order, of the decisions called t."""


def decision_of(row: Sequence[Any]) -> Decision:
    """Make a decision of a row of `DECIDED`."""
    key, branches, winner, number, execution, losers, signature, *rest = row
    return Decision(
        key,
        unpack_members(branches),
        winner,
        number,
        execution,
        unpack(losers),
        signature[:SIGNATURE_BYTES],
        *rest,
    )


def store_message(store: str) -> bytes:
    """Return what the signature that makes a store trusted covers."""
    return b"store     " + store.encode("ascii")


_NOBODYS: Identity = (bytes(16), bytes(16))
_GAP = b"".join(_NOBODYS)
_CHECKPOINT = struct.Struct(">10sqqqqdd15Q")
_DECISION = struct.Struct(">10sqqdqd7Q")


def pack(tuples: tuple[Identity, ...] | tuple[Member, ...]) -> bytes:
    """Lay tuples of digests, 16 bytes each, end to end."""
    return b"".join([digest for one in tuples for digest in one])


def unpack(data: bytes) -> tuple[Identity, ...]:
    """Take apart what `pack` laid of identities.

    What does not divide evenly was not laid by `pack`; it stays as it is, so that
    its signature fails.
    """
    return tuple((one[:16], one[16:]) for one in _pieces(data, 32))


def unpack_members(data: bytes) -> tuple[Member, ...]:
    """Take apart what `pack` laid of members; as `unpack`."""
    return tuple((one[:16], one[16:32], one[32:]) for one in _pieces(data, 48))


def pack_used(reused: tuple[Identity, ...], unasked: tuple[Identity, ...]) -> bytes:
    """Lay what an execution replayed of older versions, and what it did not ask for at all."""
    return pack(reused) + (_GAP + pack(unasked) if unasked else b"")


def unpack_used(data: bytes) -> tuple[frozenset[Identity], frozenset[Identity]]:
    """Take apart what `pack_used` laid."""
    found = unpack(data)
    at = found.index(_NOBODYS) if _NOBODYS in found else len(found)
    return frozenset(found[:at]), frozenset(found[at + 1 :])


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@dataclass(slots=True)
class PastAttempts:
    """What is known of a call's and version's earlier attempts that made no checkpoint."""

    last: int = 0
    failed: int = 0
    concluded: bool = False
    unsaved: bool = False
    deaths: int = 0
    started: float = 0.0
    execution: int = 0

    def start(self, row: StartRow) -> None:
        """Take in that an attempt began."""
        self.last, self.execution = max(self.last, row.attempt), max(self.execution, row.execution)
        self.started = row.started

    def end(self, row: AttemptEndRow) -> None:
        """Take in how an attempt ended."""
        self.last, self.execution = max(self.last, row.attempt), max(self.execution, row.execution)
        self.concluded = row.concluded
        self.unsaved = row.ending == NOT_SAVED
        self.failed = 0 if row.concluded else self.failed + (row.ending == Kind.ERROR)

    def count_death(self, *, has_outcome: bool) -> None:
        """Take in that the kernel died while an attempt was in flight."""
        self.deaths += not has_outcome


@dataclass(slots=True)
class ReplayIndex:
    """One run's checkpoints, decisions, seen errors and earlier attempts."""

    store: str
    key: bytes
    next_number: int = 1
    last_saved: float = 0.0
    checkpoints: Saved = field(default_factory=Saved)
    decisions: dict[bytes, list[Decision]] = field(default_factory=dict)
    numbered: dict[int, list[Decision]] = field(default_factory=dict)
    losers: set[Identity] = field(default_factory=set)
    loser_codes: set[Identity] = field(default_factory=set)
    waiting_losers: set[Identity] = field(default_factory=set)
    given_up: set[Identity] = field(default_factory=set)
    """What was not awaited any longer, for a clock or other code had cancelled that"""
    last_place: int = 0
    attempts: dict[Identity, PastAttempts] = field(default_factory=dict)
    spent: dict[Identity, float] = field(default_factory=dict)
    """Seconds of the attempts that failed before an outcome: to be shown, signed by nobody"""
    code_parts: dict[bytes, dict[str, bytes]] = field(default_factory=dict)
    evidence: dict[bytes, tuple[Part, ...]] = field(default_factory=dict)
    unseen: set[Identity] = field(default_factory=set)
    """Errors that nobody has seen and that were kept: they are tried again if they are asked for"""
    environments: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Each execution's Python and packages, as the store has them: signed by nobody"""
    used_attributes: dict[bytes, list[dict[tuple[str, str, str, str], set[bytes]]]] = field(
        default_factory=dict
    )
    """By code: generations of attributes that it moves by using their objects, the newest last"""
    former_calls: dict[tuple[bytes, bytes], list[tuple[bytes, bytes]]] = field(default_factory=dict)
    """By call and code without such attributes: the calls and codes under which steps are saved"""
    draws: dict[Identity, bytes] = field(default_factory=dict)
    contents: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    """By name: contents of globals that steps write, each with what it was before any wrote it"""
    saves: dict[bytes, Save] = field(default_factory=dict)
    """By call, what its step has saved of its work"""
    progressed: set[bytes] = field(default_factory=set)
    """The calls whose progress the store holds"""
    redone: dict[bytes, Redone] = field(default_factory=dict)
    """By call, that its outcome was last taken out to be made again"""
    placed: dict[bytes, Placed] = field(default_factory=dict)
    """By call, the work whose call it is, of several that run beside each other"""
    unsigned: list[Decision] = field(default_factory=list)
    """Decisions that were left out, for this user's key did not sign them"""
    accepted: list[Accepted] = field(default_factory=list)
    renamed: list[Renamed] = field(default_factory=list)

    def load_checkpoints(
        self, rows: Iterable[tuple[Any, ...]], with_pieces: Callable[[bytes], object]
    ) -> bool:
        """Take in the committed checkpoints of earlier executions; as `Saved.add`."""
        in_order = self.checkpoints.add(rows, with_pieces)
        self.next_number = max(self.next_number, self.checkpoints.last_number + 1)
        self.last_saved = max(self.last_saved, self.checkpoints.last_ended)
        return in_order

    def add_decision(self, decision: Decision) -> None:
        """Take in a committed decision."""
        self.decisions.setdefault(decision.key, []).append(decision)
        if decision.seconds:
            self.last_place = max(self.last_place, decision.place)
            self.given_up.update((call, version) for call, version, _ in decision.branches)
        else:
            self.numbered.setdefault(decision.number, []).append(decision)
        self._add_losers(decision)
        self.next_number = max(self.next_number, decision.number + 1)

    def _add_losers(self, decision: Decision) -> None:
        codes = {call: code for call, _, code in decision.branches}
        for call, version in decision.losers:
            self.losers.add((call, version))
            pair = call, codes.get(call, _UNKNOWN)
            self.loser_codes.add(pair)
            if version == _UNKNOWN:
                self.waiting_losers.add(pair)

    def lost(self, identity: Identity, code: bytes) -> bool:
        """Tell whether a decision made a loser of this call and version.

        A version of zeros, here or there, stands for one that waits for its upstream:
        then the code tells.
        """
        call, version = identity
        if version == _UNKNOWN:
            return (call, code) in self.loser_codes
        return identity in self.losers or (call, code) in self.waiting_losers

    def verify(self, checkpoint: Checkpoint) -> None:
        """Make sure that this user's key signed `checkpoint`, before it is unpickled.

        Raises:
            UntrustedCheckpointError: It did not, or a byte has changed since.
        """
        message = checkpoint_message(self.store, checkpoint)
        if not signature_holds(self.key, checkpoint.signature, message):
            raise UntrustedCheckpointError(
                f"the saved outcome of {printable(checkpoint.label)} is not signed by your key: "
                f"it was changed, damaged, or written by somebody else. Nothing of it was "
                f"unpickled. `%durable restart NAME` starts a run without it"
            )

    def is_signed(self, decision: Decision) -> bool:
        """Tell whether this user's key signed a decision, as it is now."""
        message = decision_message(self.store, decision)
        return signature_holds(self.key, decision.signature, message)

    def decision_for(self, key: bytes, branches: tuple[Member, ...]) -> Decision | None:
        """Return the decision over this set of branches, or None if the set is undecided.

        A version of zeros stands for a branch that was still waiting for its upstream
        when the decision was made; it agrees with every version of the same code.

        """
        for decision in self.decisions.get(key, ()):
            if same_set(branches, decision.branches):
                return decision
        return None

    def forget(
        self, checkpoints: Sequence[Checkpoint], within: Collection[bytes] | None = None
    ) -> None:
        """Let go of checkpoints that have been taken out, and of the decisions they closed.

        `within` as in `undo`.
        """
        if not checkpoints:
            return
        numbers = {found.number for found in checkpoints}
        for found in checkpoints:
            past = self.attempts.setdefault((found.call, found.version), PastAttempts())
            past.last, past.failed, past.concluded = max(past.last, found.attempt), 0, True
            past.deaths = 0
        self.checkpoints.remove(checkpoints)
        for decisions in self.decisions.values():
            decisions[:] = [kept for kept in decisions if not _hangs_on(kept, numbers, within)]
        for number in numbers:
            self.numbered.pop(number, None)
        # New ones, for other threads may ask meanwhile.
        fresh = ReplayIndex(self.store, self.key)
        for decisions in self.decisions.values():
            for decision in decisions:
                fresh._add_losers(decision)
        self.losers, self.loser_codes = fresh.losers, fresh.loser_codes
        self.waiting_losers = fresh.waiting_losers

    def is_redone(self, identity: Identity) -> bool:
        """Tell whether an outcome was taken out to be made again, and has not begun since."""
        redone, past = self.redone.get(identity[0]), self.attempts.get(identity)
        return redone is not None and (past is None or past.execution <= redone.execution)

    def calls_in(self, namespace: bytes) -> frozenset[bytes]:
        """Return the calls of one body, or of the cell, that have an outcome."""
        groups = [group for group in self.checkpoints.groups() if group[0] == namespace]
        return frozenset(call for group in groups for call in self.checkpoints.calls(group))

    def suspects(self) -> frozenset[Identity]:
        """Return what was in flight at two deaths of the kernel or more."""
        return frozenset(pair for pair, past in self.attempts.items() if past.deaths >= _SUSPICIOUS)

    def race_of(self, checkpoint: Checkpoint) -> Decision | None:
        """Return the race that cancelled the call of `checkpoint`, where one did."""
        for decision in self.numbered.get(checkpoint.cause, ()):
            if (checkpoint.call, checkpoint.version) in decision.losers:
                return decision
        return None

    def with_consequences(self, errors: Sequence[Checkpoint]) -> list[Checkpoint]:
        """Return `errors` and every cancellation that hangs on a decision that one of them won."""
        caused: dict[int, list[Checkpoint]] = {}
        for found in self.checkpoints.without_value():
            if found.cause:
                caused.setdefault(found.cause, []).append(found)
        taken = list(errors)
        for found in taken:  # it grows: a cancellation can have won a race itself
            taken += caused.pop(found.number, ())
        return taken

    def errors(self) -> list[Checkpoint]:
        """Return the checkpoints whose outcome is an error."""
        return [found for found in self.checkpoints.without_value() if found.kind is Kind.ERROR]


_SUSPICIOUS = 2  # deaths
_UNKNOWN = bytes(16)


def _hangs_on(decision: Decision, numbers: set[int], within: Collection[bytes] | None) -> bool:
    if decision.number in numbers:
        return True
    mine = within is None or (bool(decision.branches) and decision.branches[0][0] in within)
    return decision.winner == NOBODY and decision.number >= min(numbers) and mine


def same_set(mine: tuple[Member, ...], theirs: tuple[Member, ...]) -> bool:
    """Tell whether a decision over one set of branches is one over the other.

    A version of zeros, which is not known yet, agrees with every version of the same code.
    """
    return len(mine) == len(theirs) and all(
        call == other and code == coded and (version == known or _UNKNOWN in {version, known})
        for (call, version, code), (other, known, coded) in zip(mine, theirs, strict=True)
    )
