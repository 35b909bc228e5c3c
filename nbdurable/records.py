"""The words of the engine as data: what is asked, what ended, what was decided.

Invariant: plain frozen values. No record holds a user's object, a connection or
a lock, so each can be stored as columns, sent to a view, or compared in a test.
Digests are 16 bytes; times are seconds since the epoch (UTC); durations seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable  # noqa: TC003 - dataclass fields are read at run time
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

NOT_SAVED = "not saved"
"""How an attempt ended whose outcome the store does not hold."""
NOBODY: Final = bytes(16)
"""The winner of a decision that only makes losers."""


class Kind(StrEnum):
    """How a step ended: the tag of an outcome."""

    VALUE = "value"
    ERROR = "error"
    CANCELLED = "cancelled"


class HandleKind(StrEnum):
    """What a handle is of."""

    STEP = "step"
    TIMER = "timer"
    GATHER = "gather"
    SELECT = "select"
    RACE = "race"


class Reads(StrEnum):
    """What a file that was read and has changed does."""

    UNSET = ""
    """Named files make the step run again, others are told."""
    RERUN = "rerun"
    TELL = "tell"
    IGNORE = "ignore"


class RunStatus(StrEnum):
    """What became of a run; its last execution tells."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    DIED = "died"


class Why(StrEnum):
    """Why a step ran, or that it did not have to."""

    NEW = "new"
    REPLAYED = "replayed"
    CODE_CHANGED = "code changed"
    VALUE_CHANGED = "value changed"
    ARGUMENT_CHANGED = "argument changed"
    UPSTREAM_CHANGED = "upstream changed"
    FILE_CHANGED = "file changed"
    ERROR_RETRIED = "error retried"
    UNFINISHED = "unfinished"
    NOT_SAVED = "not saved"
    REDO = "redo"
    LOST = "value lost"
    UNREADABLE = "value unreadable"


class Reason(NamedTuple):
    """Why a step runs, and the detail that a person is told: what changed, what was lost."""

    why: Why
    detail: str = ""

    def __str__(self) -> str:
        """Return it as it is saved, and as a person reads it."""
        return f"{self.why.value}: {self.detail}" if self.detail else self.why.value


REASONS: Final = {why: Reason(why) for why in Why}
"""The reasons without a detail: one object for all steps, of which a notebook has many."""


@dataclass(frozen=True, slots=True)
class Version:
    """Which code, fed by which upstream outcomes, a call stands for.

    ``base`` is empty, but where no saved outcome of code and upstream still holds by its
    evidence: then it is what ``id`` would be without that.
    """

    code: bytes
    upstream: bytes
    id: bytes
    base: bytes = b""


class Part(NamedTuple):
    """One piece of evidence: what a body ran or met, by a name, and how that was then."""

    kind: str
    name: str
    state: bytes


@dataclass(frozen=True, slots=True)
class Payload:
    """An encoded value or error.

    ``data`` is a pickle for the row; ``pieces`` says where the large buffers that it
    goes with lie. With no ``data`` the first of them is the pickle. ``modules`` are the
    first names of those whose classes and functions it needs.
    """

    data: bytes
    pieces: bytes = b""
    modules: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Message:
    """One captured piece of output: a stream's text, a display's MIME bundle, or a warning.

    ``kind`` is ``stdout``, ``stderr``, ``display`` or ``warning``, or, of a stream that
    was written to past what had redirected it, ``held stdout`` or ``held stderr``; ``data``
    the text, or the JSON text of ``{"data": ..., "metadata": ...}`` or of a warning.
    """

    kind: str
    data: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The stored outcome of one call and version.

    ``number`` is its place in the commit order of its run. ``cause`` is 0, but for a
    cancellation by a race: then it is the number of the race's decision.
    ``arguments`` is one text of ``parameter=digest`` pairs, by which `why` names what
    changed. ``payload`` and ``pieces`` are `Payload`'s data and pieces. ``base`` is its
    version's; ``code_evidence`` and ``file_evidence`` are digests of `Part`s, empty for none.
    """

    call: bytes
    version: bytes
    code: bytes
    namespace: bytes
    number: int
    cause: int
    execution: int
    kind: Kind
    name: str
    label: str
    arguments: str
    attempt: int
    started: float
    seconds: float
    payload: bytes
    pieces: bytes
    output: str
    base: bytes
    code_evidence: bytes
    file_evidence: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Save:
    """What a step has saved of its work so far, for its next attempt.

    ``state`` stands for the values that the call received and its ``version=``: with others
    the save is not given back. ``code`` is that of the attempt that saved.
    """

    call: bytes
    state: bytes
    code: bytes
    execution: int
    attempt: int
    name: str
    label: str
    saved: float
    payload: bytes
    pieces: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Redone:
    """That a call's outcome was taken out to be made again.

    ``ordinal`` counts how often; ``execution`` is the run's last before that.
    """

    run: str
    call: bytes
    ordinal: int
    execution: int
    asked: float
    signature: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """That outcomes made with ``before`` count as made with ``after``: ``--keep`` said so.

    ``kind`` says what the two are digests of; ``name`` is the step's; ``what`` names for a
    person what differs between them. ``execution`` is the one that accepted it, ``settled``
    the one that ended the telling of it, or 0.
    """

    run: str
    kind: str
    name: str
    before: bytes
    after: bytes
    what: str
    outcomes: int
    execution: int
    settled: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class Renamed:
    """That a step called ``new`` is the one that was called ``old``, by their qualified names.

    ``new`` is short, for nobody knows the module of a step that has not run yet.
    """

    run: str
    old: str
    new: str
    renamed: float
    signature: bytes


@dataclass(frozen=True, slots=True)
class Placed:
    """Which of several equal calls is that of a piece of work that runs beside others.

    ``path`` tells the work apart, and ``position`` which of its own equal calls it is.
    """

    run: str
    call: bytes
    path: bytes
    position: int
    execution: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class Decision:
    """The stored result of a select: the lowest number among its branches.

    ``branches`` holds the (call, version, code) of every step below the branches,
    sorted; ``winner`` is the identity of the winning branch. ``seconds`` is 0, but for what a
    clock decided, an await that was cancelled or a timeout of asyncio's that passed: then it
    is how long that had lasted, there is no winner, ``number`` is the last one that had been
    given to the waiting code before, and ``place`` counts what clocks decided. The labels, and
    when it was ``decided``, are for a person.
    """

    key: bytes
    branches: tuple[tuple[bytes, bytes, bytes], ...]
    winner: bytes
    number: int
    execution: int
    losers: tuple[tuple[bytes, bytes], ...]
    signature: bytes
    seconds: float = 0.0
    place: int = 0
    label: str = ""
    winner_label: str = ""
    decided: float = 0.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often an attempt that raised is tried again, and after what wait.

    ``retries`` counts tries after the first. ``backoff`` is the first wait and
    doubles up to ``max_backoff``, both in seconds.
    """

    retries: int = 0
    backoff: float = 0.1
    max_backoff: float = 5.0
    retry_on: tuple[type[BaseException], ...] | Callable[[BaseException], bool] = (Exception,)

    def accepts(self, error: BaseException) -> bool:
        """Tell whether an attempt that ended with ``error`` is worth another."""
        if isinstance(self.retry_on, tuple):
            return isinstance(error, self.retry_on)
        return bool(self.retry_on(error))


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One line about a stored run, for lists and for the notice at load."""

    id: str
    name: str
    status: RunStatus
    created: float
    executions: int
    last_started: float
    last_ended: float | None
    saved: int
    in_flight: int
    progress: str = ""
    """How far the steps in flight said that they were, as ``37 of 90``"""


def digest_of(*parts: bytes) -> bytes:
    """Return the 16-byte digest of `parts`, each with its length before it (BLAKE2b)."""
    return hashlib.blake2b(
        b"".join([b"%d:%b" % (len(part), part) for part in parts]), digest_size=16
    ).digest()


def digest_of_parts(parts: Iterable[Part]) -> bytes:
    """Return the digest of pieces of evidence, in any order; of none, nothing."""
    laid = [(kind.encode(), name.encode("utf-8", "surrogatepass"), s) for kind, name, s in parts]
    return digest_of(*[field for one in sorted(laid) for field in one]) if laid else b""


TIMER_VERSION: Final = Version(b"", b"", digest_of(b"timer"))
"""Every timer's: it has no code."""
