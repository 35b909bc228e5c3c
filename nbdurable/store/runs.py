"""Runs and their executions: begun, listed, and what of a run is at hand to be replayed.

Invariant: executions are numbered over all runs of the store, and one begins in the
transaction that takes out what it tries again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import uuid
from typing import TYPE_CHECKING, Any

from nbdurable.errors import StoreCorruptError, UntrustedCheckpointError
from nbdurable.labels import printable, share
from nbdurable.records import (
    NOBODY,
    Part,
    RunStatus,
    RunSummary,
    digest_of_parts,
)

from .amendments import load_amendments
from .changes import drop_unsigned, take_out
from .index import DECIDED, PastAttempts, ReplayIndex, decision_of, unpack
from .packed import COLUMNS
from .remembered import load_remembered, signed_rows
from .rows import (
    TABLE_OF,
    AttemptEndRow,
    CodeRow,
    ExecutionRow,
    RunRow,
    SeenErrorRow,
    StartRow,
    listed,
)

if TYPE_CHECKING:
    from nbdurable.records import Checkpoint

    from .database import Store
    from .journal import Batch


@dataclasses.dataclass(frozen=True, slots=True)
class Opened:
    """What an execution starts from.

    ``finished`` is the last one that came to its end, or 0; ``undecided`` names decisions
    that were taken out, for this user's key did not sign them as they are.
    """

    run: str
    execution: int
    resumed: bool
    previous: RunStatus | None
    created: float
    index: ReplayIndex
    retried: frozenset[tuple[bytes, bytes]]
    finished: int = 0
    undecided: tuple[str, ...] = ()


def begin_execution(
    store: Store, name: str, *, now: float, new: bool = False, max_age: float | None = None
) -> Opened:
    """Begin an execution of the newest run called `name`, or of a new run.

    Errors that nobody saw, and those that ended the last execution, are taken
    out with the decisions that they closed, in the transaction that begins the
    execution (CONTRACT section 5).

    Args:
        store: Where the run is.
        name: The workflow's name.
        now: The clock's time.
        new: A finished run is not replayed: a new one begins.
        max_age: As `new`, when the last checkpoint is older than so many seconds.
    """
    with store.beginning:  # executions are numbered over all runs of the store
        return _begin(store, name, now, new=new, max_age=max_age)


def _begin(store: Store, name: str, now: float, *, new: bool, max_age: float | None) -> Opened:
    run = newest_run(store, name)
    index = ReplayIndex(store.id, store.key)
    if run is not None:
        index = load_index(store, run[0])
        store.heads.verify(run[0], name, index.checkpoints.sum)
    previous = None if run is None else _last_status(store, run[0])
    stale = max_age is not None and index.last_saved and now - index.last_saved > max_age
    if max_age is not None:
        _verify_age(index, now - max_age)
    redone = run is not None and _is_redone(store, run[0], index)
    if redone and previous is RunStatus.FINISHED:
        previous = RunStatus.INTERRUPTED  # what was taken out of it is still to come
    if run is None or stale or (new and previous is RunStatus.FINISHED):
        run, previous, index = (uuid.uuid4().hex, now), None, ReplayIndex(store.id, store.key)
        fresh = True
    else:
        fresh = False
    retried = _retried(store, run[0], index) if not fresh else []
    taken = index.with_consequences(retried)
    execution = store.rows("SELECT COALESCE(max(id), 0) + 1 FROM nbdurable.execution_log")[0][0]
    known = store.rows("SELECT 1 FROM nbdurable.run_log WHERE id = ?", [run[0]])

    def write(batch: Batch) -> None:
        if not known:
            batch.add(RunRow(run[0], name, run[1]))
        batch.add(
            ExecutionRow(
                id=execution,
                run=run[0],
                started=now,
                pid=os.getpid(),
                host=platform.node(),
                python=platform.python_version(),
                packages="",
            )
        )
        if taken:
            take_out(batch, run[0], taken)
        if index.unsigned:
            drop_unsigned(batch, index.unsigned)

    store.commit(write)
    index.forget(taken)
    return Opened(
        run=run[0],
        execution=execution,
        resumed=previous is not None,
        previous=previous,
        created=run[1],
        index=index,
        retried=frozenset((found.call, found.version) for found in retried),
        finished=_last_finished(store, run[0]),
        undecided=tuple(one.label or "a select" for one in index.unsigned),
    )


def _verify_age(index: ReplayIndex, oldest: float) -> None:
    """Make sure that how old a run's newest outcome is was signed.

    Raises:
        UntrustedCheckpointError: It was not.
    """
    for found in reversed(list(index.checkpoints)):
        # One that is new enough proves that the run is; that none is, all of them.
        if found.started + found.seconds >= oldest or index.last_saved < oldest:
            index.verify(found)
        if index.last_saved >= oldest and found.started + found.seconds >= oldest:
            return


def restart(store: Store, name: str, now: float) -> bool:
    """Make the next execution of `name` begin a new run; False if there is none to leave."""
    if newest_run(store, name) is None:
        return False
    row = RunRow(uuid.uuid4().hex, name, now)
    store.commit(lambda batch: batch.add(row))
    return True


def summaries(store: Store, name: str | None = None) -> list[RunSummary]:
    """Return a line about each run, newest first."""
    rows = store.rows(
        """
        SELECT r.id, r.name, r.created, count(e.id), max(e.started),
               last(x.ended ORDER BY e.id), arg_max(COALESCE(x.status, 'died'), e.id),
               (SELECT count(*) FROM nbdurable.checkpoints c
                JOIN nbdurable.execution_log o ON o.id = c.execution WHERE o.run = r.id),
               (SELECT count(DISTINCT (s.call, s.version)) FROM nbdurable.starts s
                JOIN nbdurable.execution_log o ON o.id = s.execution
                WHERE o.run = r.id AND NOT EXISTS (
                    FROM nbdurable.checkpoints c
                    WHERE c.call = s.call AND c.version = s.version))
        FROM nbdurable.run_log r
        LEFT JOIN nbdurable.execution_log e ON e.run = r.id
        LEFT JOIN nbdurable.execution_ends x ON x.execution = e.id
        GROUP BY r.id, r.name, r.created, r.rowid ORDER BY r.created DESC, r.rowid DESC
        """
    )
    reached, redone = progress_of_runs(store), _redone_runs(store)
    found = [
        RunSummary(
            id=run,
            name=called,
            status=(
                _status(status, store, redone=run in redone)
                if executions
                else RunStatus.INTERRUPTED
            ),
            created=created,
            executions=executions,
            last_started=started or created,
            last_ended=ended,
            saved=saved,
            in_flight=in_flight,
            progress=reached.get(run, ""),
        )
        for run, called, created, executions, started, ended, status, saved, in_flight in rows
    ]
    return [summary for summary in found if name is None or summary.name == name]


def _status(text: str, store: Store, *, redone: bool) -> RunStatus:
    """Return what became of a run; one that lacks what was taken out of it is not finished."""
    status: RunStatus = known_word(RunStatus, text, store)
    return RunStatus.INTERRUPTED if redone and status is not RunStatus.DIED else status


def _redone_runs(store: Store) -> set[str]:
    """Return the runs of which something was taken out after their last execution."""
    rows = store.rows(
        "SELECT r.run FROM nbdurable.redos r JOIN nbdurable.execution_log e ON e.run = r.run "
        "GROUP BY r.run HAVING max(r.execution) >= max(e.id)"
    )
    return {run for (run,) in rows}


def progress_of_runs(store: Store) -> dict[str, str]:
    """Return, by run, how far its steps without an outcome said that they were."""
    found: dict[str, list[str]] = {}
    for run, done, total in store.rows(
        """
        SELECT e.run, p.done, p.total FROM nbdurable.progress p
        JOIN nbdurable.execution_log e ON e.id = p.execution
        WHERE NOT EXISTS (FROM nbdurable.checkpoints c
                          WHERE c.call = p.call AND c.version = p.version)
        ORDER BY p.told DESC
        """
    ):
        found.setdefault(run, []).append(share(done, total))
    return {
        run: newest + (f", and {len(older)} more under way" if older else "")
        for run, (newest, *older) in found.items()
    }


def newest_run(store: Store, name: str) -> tuple[str, float] | None:
    """Return the id of the newest run called `name`, and when it was made; None if there is none.

    Raises:
        StoreCorruptError: Its id is none that nbdurable gives.
    """
    rows = store.rows(
        "SELECT id, created FROM nbdurable.run_log WHERE name = ? ORDER BY created DESC, "
        "rowid DESC LIMIT 1",
        [name],
    )
    if rows and not rows[0][0].isascii():
        raise StoreCorruptError(
            f"{store.path} has a run with the id {rows[0][0]!r:.60}, which no nbdurable writes; "
            f"it was left as it is: restore it from a copy, or move it away"
        )
    return rows[0] if rows else None


def last_execution(store: Store, run: str) -> int:
    """Return the number of a run's last execution, 0 if it has none."""
    found = store.rows("SELECT max(id) FROM nbdurable.execution_log WHERE run = ?", [run])
    return int(found[0][0] or 0)


def _last_status(store: Store, run: str) -> RunStatus | None:
    rows = store.rows(
        "SELECT COALESCE(x.status, 'died') FROM nbdurable.execution_log e "
        "LEFT JOIN nbdurable.execution_ends x ON x.execution = e.id "
        "WHERE e.run = ? ORDER BY e.id DESC LIMIT 1",
        [run],
    )
    return known_word(RunStatus, rows[0][0], store) if rows else None


def _last_finished(store: Store, run: str) -> int:
    rows = store.rows(
        "SELECT COALESCE(max(e.id), 0) FROM nbdurable.execution_log e "
        "JOIN nbdurable.execution_ends x ON x.execution = e.id "
        "WHERE e.run = ? AND x.status = 'finished'",
        [run],
    )
    found: int = rows[0][0]
    return found


def known_word(words: Any, text: str, store: Store) -> Any:
    """Return the member of an enumeration that a row says.

    Raises:
        StoreCorruptError: There is no such member.
    """
    try:
        return words(text)
    except ValueError as error:
        raise StoreCorruptError(
            f"{store.path} says {text!r:.60} where one of {', '.join(words)} stands, which no "
            f"nbdurable writes; it was left as it is: restore it from a copy, or move it away"
        ) from error


def _is_redone(store: Store, run: str, index: ReplayIndex) -> bool:
    """Tell whether an outcome of a run was taken out after its last execution."""
    last = last_execution(store, run) if index.redone else 0
    return any(one.execution >= last for one in index.redone.values())


def _retried(store: Store, run: str, index: ReplayIndex) -> list[Checkpoint]:
    errors = index.errors()
    if not errors:
        return []
    seen = {(row.call, row.version) for row in signed_rows(store, SeenErrorRow, run)}
    ends = store.rows(
        "SELECT x.listed FROM nbdurable.execution_log e "
        "LEFT JOIN nbdurable.execution_ends x ON x.execution = e.id "
        "WHERE e.run = ? ORDER BY e.id DESC LIMIT 1",
        [run],
    )
    listed = set(unpack(ends[0][0])) if ends and ends[0][0] else set()
    retried: list[Checkpoint] = []
    kept: list[Checkpoint] = []
    for found in errors:
        pair = found.call, found.version
        if pair in listed:
            retried.append(found)
        elif pair not in seen and pair not in index.given_up:
            (kept if index.checkpoints.newest(found.namespace) else retried).append(found)
    _retry_with_parents(retried, kept)
    _keep_lost(retried, kept, index, listed)
    index.unseen = {(found.call, found.version) for found in kept}
    for found in retried:
        index.verify(found)  # nothing is taken out on the word of somebody else's row
    return retried


def _retry_with_parents(retried: list[Checkpoint], kept: list[Checkpoint]) -> None:
    """Move to the errors that are retried those that a body that is retried has not seen.

    A body that stays as it is asks for nothing; if it runs again after all, for its code
    was edited, what it has not seen is tried again when it asks for it.
    """
    by_parent: dict[bytes, list[Checkpoint]] = {}
    for found in kept:
        by_parent.setdefault(found.namespace, []).append(found)
    for found in retried:  # it grows, level by level
        retried += by_parent.pop(found.call, ())
    kept[:] = [found for left in by_parent.values() for found in left]


def _keep_lost(
    retried: list[Checkpoint],
    kept: list[Checkpoint],
    index: ReplayIndex,
    listed: set[tuple[bytes, bytes]],
) -> None:
    """Keep the errors of losers, which nobody asks for, as long as their decisions stand.

    One that has decided something itself is taken out: that is to be decided anew.
    """
    losing: list[Checkpoint] = []
    decisions = [decision for made in index.numbered.values() for decision in made]
    last_left = max(
        (one.number for one in decisions if one.winner == NOBODY and not one.seconds), default=0
    )
    for found in retried:
        if (found.call, found.version) in listed or found.number in index.numbered:
            continue
        if found.number > last_left and index.lost((found.call, found.version), found.code):
            losing.append(found)
    while losing:
        gone = {id(found) for found in losing}
        rest = [found for found in retried if id(found) not in gone]
        undone = {found.number for found in index.with_consequences(rest)}
        standing = [one for one in decisions if one.number not in undone]
        lost = {pair for decision in standing for pair in decision.losers}
        stays = [found for found in losing if (found.call, found.version) in lost]
        if len(stays) == len(losing):
            retried[:] = rest
            kept += losing
            return
        losing = stays


def load_index(store: Store, run: str) -> ReplayIndex:
    """Return what `run` has saved."""
    index = ReplayIndex(store.id, store.key)
    if not _load_checkpoints(store, run, index, sort=False):
        index = ReplayIndex(store.id, store.key)
        _load_checkpoints(store, run, index, sort=True)
    of_run = "JOIN nbdurable.execution_log e ON e.id = t.execution WHERE e.run = ?"
    for row in store.rows(
        f"SELECT {', '.join(DECIDED)} FROM nbdurable.decision_log t {of_run} ORDER BY number",  # noqa: S608 - no input
        [run],
    ):
        decision = decision_of(row)
        if index.is_signed(decision):
            index.add_decision(decision)
        else:
            index.unsigned.append(decision)
    load_amendments(store, run, index)
    _load_attempts(store, run, of_run, index)
    for execution, python, packages in store.rows(
        "SELECT id, python, packages FROM nbdurable.execution_log WHERE run = ?", [run]
    ):
        index.environments[execution] = python, packages
    for row in signed_rows(store, CodeRow):
        index.code_parts.setdefault(row.code, {})[row.part] = row.digest
    load_remembered(store, run, index)
    index.evidence = evidence_in(store)
    return index


def evidence_in(store: Store) -> dict[bytes, tuple[Part, ...]]:
    """Return the pieces of evidence that a store holds, by their digest; others are left out.

    A digest is signed with each outcome that has it, so what is not of it was not ours.
    """
    found: dict[bytes, set[Part]] = {}  # two runs at once may have saved one twice
    for digest, *part in store.rows("SELECT evidence, kind, part, state FROM nbdurable.evidence"):
        found.setdefault(digest, set()).add(Part(*part))
    return {d: tuple(sorted(parts)) for d, parts in found.items() if digest_of_parts(parts) == d}


def _load_checkpoints(store: Store, run: str, index: ReplayIndex, *, sort: bool) -> bool:
    # Rows lie in commit order as they were appended; sorting a million takes 400 MB.
    query = (
        f"SELECT {', '.join(COLUMNS)} FROM nbdurable.checkpoints WHERE execution IN "  # noqa: S608 - no input
        "(SELECT id FROM nbdurable.execution_log WHERE run = ?)"
    )
    rows = store.streamed(f"{query} ORDER BY number" if sort else query, [run])
    with contextlib.closing(rows):
        return index.load_checkpoints(rows, store.objects.remember)


def _load_attempts(store: Store, run: str, of_run: str, index: ReplayIndex) -> None:
    # What has its value starts again only if that is lost, and then anew.
    has_value = index.checkpoints.has_value
    ended: set[tuple[bytes, bytes, int, int]] = set()
    settled: dict[tuple[bytes, bytes], int] = {}
    for fields in store.streamed(
        f"SELECT {listed(AttemptEndRow._fields, 't')} FROM nbdurable.attempt_ends t {of_run} "  # noqa: S608 - no input
        "ORDER BY t.execution, attempt",
        [run],
    ):
        end = AttemptEndRow._make(fields)
        identity = end.call, end.version
        if end.ending == "error":
            index.spent[identity] = index.spent.get(identity, 0.0) + end.seconds
        if has_value(identity):
            continue
        _verify_attempt(store, end)
        past = index.attempts.setdefault(identity, PastAttempts())
        past.end(end)
        ended.add((*identity, end.attempt, end.execution))
        if end.concluded:
            settled[identity] = end.execution
    for *laid, died in store.streamed(
        f"SELECT {listed(StartRow._fields, 't')}, x.execution IS NULL "  # noqa: S608 - no input
        "FROM nbdurable.starts t JOIN nbdurable.execution_log e ON e.id = t.execution "
        "LEFT JOIN nbdurable.execution_ends x ON x.execution = t.execution "
        "WHERE e.run = ? ORDER BY t.execution, attempt",
        [run],
    ):
        start = StartRow._make(laid)
        identity = start.call, start.version
        if has_value(identity):
            continue
        _verify_attempt(store, start)
        past = index.attempts.setdefault(identity, PastAttempts())
        past.start(start)
        in_flight = (*identity, start.attempt, start.execution) not in ended
        if (save := index.saves.get(start.call)) is not None and save.execution >= start.execution:
            continue  # it had got on with its work: it is not what kills the kernel
        if died and in_flight and start.execution > settled.get(identity, 0):
            past.count_death(has_outcome=identity in index.checkpoints)


def _verify_attempt(store: Store, row: StartRow | AttemptEndRow) -> None:
    """Make sure that what is said of an attempt was signed: code can ask how many there were."""
    if not store.heads.holds(TABLE_OF[type(row)], row[:-1], row.signature):
        raise UntrustedCheckpointError(
            f"what {store.path} says of an attempt of {printable(row.label)} is not signed by your "
            f"key: it was changed, damaged, or written by somebody else, so the run is not "
            f"replayed; `%durable restart NAME` starts one without it"
        )
