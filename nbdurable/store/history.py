"""What a store holds of a run's last execution: outcomes, attempts without one, decisions.

Invariant: columns only, and only such as say what they are: no value is read, no signature
needed. A number that no clock gave counts as 0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from nbdurable.labels import printable
from nbdurable.records import Kind, RunStatus

from .index import unpack, unpack_members, unpack_used
from .packed import COLUMNS, checkpoint_of
from .runs import known_word

if TYPE_CHECKING:
    from nbdurable.records import Checkpoint

    from .database import Store
    from .packed import Identity


NOT_STARTED: Final = "not started"


class Ended(NamedTuple):
    """A checkpoint without what was saved in it; see `Checkpoint`."""

    call: bytes
    version: bytes
    namespace: bytes
    number: int
    execution: int
    kind: Kind
    name: str
    label: str
    why: str
    attempt: int
    started: float
    seconds: float
    timer: bool


class Try(NamedTuple):
    """An attempt that gave no outcome; ``seconds`` is None for one that did not end.

    With the ending `NOT_STARTED` it is a loser that an earlier execution had started.
    """

    call: bytes
    version: bytes
    attempt: int
    name: str
    label: str
    started: float
    seconds: float | None
    ending: str
    error: str


class Choice(NamedTuple):
    """A decision; ``branches`` and ``losers`` are the calls of the steps below the branches."""

    winner: bytes
    branches: tuple[bytes, ...]
    losers: frozenset[bytes]
    number: int
    execution: int
    label: str
    winner_label: str
    decided: float


class Past(NamedTuple):
    """The newest run of a name, as its last execution left it.

    ``outcomes`` are the newest of each call, in commit order, those of earlier executions
    included; ``unasked`` the calls of those that it did not ask for, if it came to its end;
    ``tries`` are the last execution's. ``saved`` counts what was at hand when it
    began. ``ended`` is None where it has no end yet. ``reached`` is how far a call said that
    it was, and of how much.
    """

    run: str
    execution: int
    began: float
    ended: float | None
    status: RunStatus
    saved: int
    outcomes: tuple[Ended, ...]
    unasked: frozenset[bytes]
    tries: tuple[Try, ...]
    choices: tuple[Choice, ...]
    reached: dict[bytes, tuple[float, float]]


_OF_RUN = "execution IN (SELECT id FROM nbdurable.execution_log WHERE run = ?)"


def past_of(store: Store, name: str, *, limit: int) -> Past | None:
    """Return what there is of the newest run called `name`.

    None if it has not been executed, or holds more than `limit` outcomes.

    Raises:
        StoreCorruptError: A row says what no nbdurable writes.
    """
    found = store.rows(
        """
        SELECT e.run, e.id, e.started, x.ended, COALESCE(x.status, 'died'), x.reused
        FROM nbdurable.execution_log e
        LEFT JOIN nbdurable.execution_ends x ON x.execution = e.id
        WHERE e.run = (SELECT id FROM nbdurable.run_log WHERE name = ?
                       ORDER BY created DESC, rowid DESC LIMIT 1)
        ORDER BY e.id DESC LIMIT 1
        """,
        [name],
    )
    if not found:
        return None
    run, execution, began, ended, status, reused = found[0]
    ((count,),) = store.rows(f"SELECT count(*) FROM nbdurable.checkpoints WHERE {_OF_RUN}", [run])  # noqa: S608 - a constant
    if count > limit:
        return None
    older, unasked = unpack_used(reused or b"")
    outcomes = _outcomes(store, run, older)
    tries = _tries(store, execution, {(one.call, one.version) for one in outcomes})
    choices = _choices(store, run)
    known = {one.call for one in outcomes} | {one.call for one in tries}
    lost = {call for choice in choices for call in choice.losers} - known
    return Past(
        run,
        execution,
        _time(began),
        None if ended is None else _time(ended),
        known_word(RunStatus, status, store),
        sum(one.execution != execution for one in outcomes),
        outcomes,
        frozenset(call for call, _ in unasked),
        (*tries, *_not_started(store, run, lost)),
        choices,
        {
            call: (_time(done), _time(total))
            for call, done, total in store.rows(
                f"SELECT call, done, total FROM nbdurable.progress WHERE {_OF_RUN}",  # noqa: S608 - a constant
                [run],
            )
        },
    )


def _outcomes(store: Store, run: str, reused: frozenset[Identity]) -> tuple[Ended, ...]:
    """Return the newest outcome of each call, or an older one that the last execution used."""
    chosen: dict[bytes, Ended] = {}
    for call, version, code, namespace, number, execution, kind, *rest in store.rows(
        "SELECT call, version, code, namespace, number, execution, kind, name, label, why, "  # noqa: S608 - a constant
        f"attempt, started, seconds FROM nbdurable.checkpoints WHERE {_OF_RUN} ORDER BY number",
        [run],
    ):
        before = chosen.get(call)
        if before is not None and (call, before.version) in reused:
            continue
        name, label, why, attempt, started, seconds = rest
        chosen[call] = Ended(
            call,
            version,
            namespace,
            number,
            execution,
            known_word(Kind, kind, store),
            printable(name),
            printable(label),
            printable(why),
            attempt,
            _time(started),
            _time(seconds),
            code == _NO_CODE,
        )
    return tuple(sorted(chosen.values(), key=lambda one: one.number))


_NO_CODE = bytes(16)  # a timer's


def _tries(store: Store, execution: int, ended: set[Identity]) -> tuple[Try, ...]:
    """Return the attempts of an execution that failed, in order, and those that did not end."""
    found = [
        Try(
            call,
            version,
            attempt,
            printable(name),
            printable(label),
            _time(started),
            _time(seconds),
            ending,
            printable(error),
        )
        for call, version, attempt, name, label, started, seconds, ending, error in store.rows(
            "SELECT call, version, attempt, name, label, started, seconds, ending, error "
            "FROM nbdurable.attempt_ends WHERE execution = ? ORDER BY attempt",
            [execution],
        )
    ]
    known = {(one.call, one.version, one.attempt) for one in found}
    for call, version, attempt, name, label, started in store.rows(
        "SELECT call, version, attempt, name, label, started FROM nbdurable.starts "
        "WHERE execution = ? ORDER BY attempt",
        [execution],
    ):
        if (call, version) not in ended and (call, version, attempt) not in known:
            said = printable(name), printable(label)
            found.append(Try(call, version, attempt, *said, _time(started), None, "", ""))
    return tuple(found)


def _not_started(store: Store, run: str, lost: set[bytes]) -> tuple[Try, ...]:
    """Return the losers that the last execution did not start, and an earlier one had."""
    found = (
        {
            call: Try(
                call,
                version,
                attempt,
                printable(name),
                printable(label),
                _time(started),
                None,
                NOT_STARTED,
                "",
            )
            for call, version, attempt, name, label, started in store.rows(
                "SELECT call, version, attempt, name, label, started FROM nbdurable.starts "  # noqa: S608 - a constant
                f"WHERE {_OF_RUN} AND list_contains(?, call) ORDER BY execution, attempt",
                [run, list(lost)],
            )
        }
        if lost
        else {}
    )
    return tuple(found.values())


def _choices(store: Store, run: str) -> tuple[Choice, ...]:
    """Return the decisions, the newest over each set of calls."""
    chosen: dict[tuple[bytes, tuple[bytes, ...]], Choice] = {}
    for key, branches, winner, losers, *rest in store.rows(
        "SELECT key, branches, winner, losers, number, execution, label, winner_label, decided "  # noqa: S608 - a constant
        f"FROM nbdurable.decision_log WHERE {_OF_RUN} ORDER BY number",
        [run],
    ):
        number, execution, label, winner_label, decided = rest
        calls = tuple(call for call, _, _ in unpack_members(branches))
        lost = frozenset(call for call, _ in unpack(losers))
        chosen[key, calls] = Choice(
            winner,
            calls,
            lost,
            number,
            execution,
            printable(label),
            printable(winner_label),
            _time(decided),
        )
    return tuple(chosen.values())


def _time(seconds: float) -> float:
    return seconds if math.isfinite(seconds) else 0.0


def outcome_of(store: Store, identity: Identity) -> Checkpoint | None:
    """Return an outcome whole, its signature verified; None if it is not there any more.

    Raises:
        UntrustedCheckpointError: It is not signed by this user's key.
    """
    rows = store.rows(
        f"SELECT {', '.join(COLUMNS)} FROM nbdurable.checkpoints "  # noqa: S608 - names of ours
        "WHERE call = ? AND version = ? ORDER BY number DESC LIMIT 1",
        list(identity),
    )
    if not rows:
        return None
    found = checkpoint_of(rows[0])
    store.verify(found)
    return found
