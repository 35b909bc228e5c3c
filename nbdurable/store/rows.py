"""The row of each table, stated once: the schema, writers, readers and signatures go by it.

Invariant: fields are columns, in the order of the table, for rows are laid by position where
DuckDB takes them. A row is a tuple, so that laying it costs nothing; nobody else counts its
columns. Where `signature` is the last field and empty, the row is signed as its transaction is
written (see `heads`).

Digests are bytes, times seconds since the epoch (UTC). A field that Python would not take as a
name ends in an underscore.
"""

from __future__ import annotations

import functools
import operator
import typing
from typing import TYPE_CHECKING, Final, NamedTuple

from nbdurable.records import Accepted, Placed, Redone, Renamed, Save

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nbdurable.records import Checkpoint, Decision


class MetaRow(NamedTuple):
    """What belongs to the store: its id, its version, and that it is trusted."""

    key: str
    value: bytes


class RunRow(NamedTuple):
    """A run of a workflow."""

    id: str
    name: str
    created: float
    signature: bytes = b""


class ExecutionRow(NamedTuple):
    """That an execution of a run began, and where."""

    id: int
    run: str
    started: float
    pid: int
    host: str
    python: str
    packages: str
    signature: bytes = b""


class ExecutionEndRow(NamedTuple):
    """How an execution ended, and what it told a person."""

    execution: int
    status: str
    ended: float
    error: str
    listed: bytes
    reused: bytes
    told: str
    signature: bytes = b""


class CheckpointRow(NamedTuple):
    """The outcome of a call and version; see `records.Checkpoint`."""

    call: bytes
    version: bytes
    code: bytes
    namespace: bytes
    number: int
    cause: int
    execution: int
    kind: str
    name: str
    label: str
    arguments: str
    why: str
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


class StartRow(NamedTuple):
    """That an attempt began."""

    call: bytes
    version: bytes
    attempt: int
    execution: int
    name: str
    label: str
    started: float
    signature: bytes = b""


class AttemptEndRow(NamedTuple):
    """How an attempt ended that has no checkpoint."""

    call: bytes
    version: bytes
    attempt: int
    execution: int
    name: str
    label: str
    started: float
    seconds: float
    ending: str
    error: str
    concluded: bool
    signature: bytes = b""


class DecisionRow(NamedTuple):
    """Which branch a combinator ended with; see `records.Decision`, whose sets are packed here."""

    key: bytes
    branches: bytes
    winner: bytes
    losers: bytes
    number: int
    execution: int
    label: str
    winner_label: str
    decided: float
    signature: bytes
    seconds: float
    place: int


class SeenErrorRow(NamedTuple):
    """That code was given an error."""

    call: bytes
    version: bytes
    execution: int
    signature: bytes = b""


class UsedAttributeRow(NamedTuple):
    """That an attribute changes by being used, so that it is left out of a comparison."""

    code: bytes
    generation: int
    root: str
    holder: str
    class_: str
    attribute: str
    text: bytes
    signature: bytes = b""


class FormerCallRow(NamedTuple):
    """Under which call and code the outcome of a call is saved, since attributes are left out."""

    call: bytes
    code: bytes
    saved_call: bytes
    saved_code: bytes
    execution: int
    signature: bytes = b""


class DrawRow(NamedTuple):
    """What state a body left the random generators in that it drew from."""

    call: bytes
    version: bytes
    execution: int
    states: bytes
    signature: bytes = b""


class ContentRow(NamedTuple):
    """What a global was that bodies write, after an execution."""

    name: str
    content: bytes
    base: bytes
    execution: int
    signature: bytes = b""


class CodeRow(NamedTuple):
    """One part of a code."""

    code: bytes
    part: str
    digest: bytes
    signature: bytes = b""


class HeadRow(NamedTuple):
    """The head of a run that no row of its last transaction could take along; see `heads`."""

    run: str
    signature: bytes


class ProgressRow(NamedTuple):
    """How far an attempt said that it is: one row a call, a total of 0 where it gave none."""

    call: bytes
    version: bytes
    execution: int
    attempt: int
    label: str
    done: float
    total: float
    told: float


class FailureRow(NamedTuple):
    """How an attempt failed whose outcome is saved, in one line: to be read, by people alone."""

    call: bytes
    version: bytes
    attempt: int
    execution: int
    error: str


class EvidenceRow(NamedTuple):
    """One piece of evidence, of which a digest stands for many."""

    evidence: bytes
    kind: str
    part: str
    state: bytes


Amendment = Save | Redone | Accepted | Renamed | Placed
"""What stands beside outcomes and is changed later; each is a row of its own table as it is."""

Row = (
    MetaRow
    | RunRow
    | ExecutionRow
    | ExecutionEndRow
    | CheckpointRow
    | StartRow
    | AttemptEndRow
    | DecisionRow
    | SeenErrorRow
    | UsedAttributeRow
    | FormerCallRow
    | DrawRow
    | ContentRow
    | CodeRow
    | HeadRow
    | ProgressRow
    | FailureRow
    | EvidenceRow
)
RememberedRow = UsedAttributeRow | FormerCallRow | DrawRow | ContentRow
"""What a run remembers beside its outcomes; see `remembered`."""

KINDS: Final[dict[str, type]] = {
    "meta": MetaRow,
    "run_log": RunRow,
    "execution_log": ExecutionRow,
    "execution_ends": ExecutionEndRow,
    "checkpoints": CheckpointRow,
    "starts": StartRow,
    "attempt_ends": AttemptEndRow,
    "decision_log": DecisionRow,
    "seen_errors": SeenErrorRow,
    "used_attributes": UsedAttributeRow,
    "former_calls": FormerCallRow,
    "draws": DrawRow,
    "contents": ContentRow,
    "codes": CodeRow,
    "heads": HeadRow,
    "saves": Save,
    "progress": ProgressRow,
    "failures": FailureRow,
    "redos": Redone,
    "acceptances": Accepted,
    "renames": Renamed,
    "placements": Placed,
    "evidence": EvidenceRow,
}
"""The rows of each table, in the order in which the tables are made."""

TABLE_OF: Final[dict[type, str]] = {kind: table for table, kind in KINDS.items()}

AMENDMENTS: Final = (Save, Redone, Accepted, Renamed, Placed)

_TYPES: Final = {
    bytes: "BLOB", str: "VARCHAR", float: "DOUBLE", int: "BIGINT", bool: "BOOLEAN",
}  # fmt: skip
_SMALL: Final = {"attempt", "ordinal", "position"}
"""Counts that fit in 32 bits, in whatever table."""


@functools.cache
def columns_of(table: str) -> dict[str, str]:
    """Return the columns of a table with their types in SQL, in their order."""
    return {
        name.removesuffix("_"): "INTEGER" if name in _SMALL else _TYPES[hint]
        for name, hint in typing.get_type_hints(KINDS[table]).items()
    }


def listed(names: Iterable[str], of: str = "") -> str:
    """Return columns as SQL lists them, of the table that is called `of` in the query."""
    return ", ".join(f"{of}.{name}" if of else name for name in names)


_BEFORE_WHY: Final = operator.attrgetter(
    *CheckpointRow._fields[: CheckpointRow._fields.index("why")]
)
_AFTER_WHY: Final = operator.attrgetter(
    *CheckpointRow._fields[CheckpointRow._fields.index("why") + 1 : -1]
)


def checkpoint_row(checkpoint: Checkpoint, why: str, signature: bytes) -> CheckpointRow:
    """Return the row of an outcome, with why its step ran."""
    fields = (*_BEFORE_WHY(checkpoint), why, *_AFTER_WHY(checkpoint), signature)
    return CheckpointRow._make(fields)


def decision_row(
    decision: Decision, branches: bytes, losers: bytes, signature: bytes
) -> DecisionRow:
    """Return the row of a decision, with its packed branches and losers."""
    return DecisionRow(
        key=decision.key,
        branches=branches,
        winner=decision.winner,
        losers=losers,
        number=decision.number,
        execution=decision.execution,
        label=decision.label,
        winner_label=decision.winner_label,
        decided=decision.decided,
        signature=signature,
        seconds=decision.seconds,
        place=decision.place,
    )
