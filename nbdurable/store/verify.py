"""`check`: every invariant of a store, verified by reading it.

Invariant: reads only; gives sentences, one for each violation, never an
exception for what it finds.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from nbdurable.codec.signing import signature_holds
from nbdurable.errors import UntrustedCheckpointError
from nbdurable.records import Decision, RunStatus

from .amendments import amendment_message, amendments
from .index import checkpoint_message
from .rows import AMENDMENTS, TABLE_OF
from .runs import evidence_in, load_index

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .database import Store
    from .index import ReplayIndex

# Each query gives the violations of one sentence.
_QUERIES = {
    "two checkpoints for one call and version": """
        SELECT label FROM nbdurable.checkpoints
        GROUP BY call, version, label HAVING count(*) > 1""",
    "a checkpoint of no execution": """
        SELECT label FROM nbdurable.checkpoints
        WHERE execution NOT IN (SELECT id FROM nbdurable.execution_log)""",
    "an execution of no run": """
        SELECT id FROM nbdurable.execution_log
        WHERE run NOT IN (SELECT id FROM nbdurable.run_log)""",
    "an execution with two ends": """
        SELECT execution FROM nbdurable.execution_ends GROUP BY execution HAVING count(*) > 1""",
    "one number for two outcomes of a run": """
        SELECT e.run || ' ' || c.number FROM nbdurable.checkpoints c
        JOIN nbdurable.execution_log e ON e.id = c.execution
        GROUP BY e.run, c.number HAVING count(*) > 1""",
    "two decisions over one set of branches": """
        SELECT d.label FROM nbdurable.decision_log d
        JOIN nbdurable.execution_log e ON e.id = d.execution
        GROUP BY e.run, d.key, d.branches, d.label HAVING count(*) > 1""",
    "an outcome of an unknown kind": """
        SELECT label FROM nbdurable.checkpoints
        WHERE kind NOT IN ('value', 'error', 'cancelled')""",
    "a checkpoint and a concluded attempt with one number": """
        SELECT c.label FROM nbdurable.checkpoints c JOIN nbdurable.attempt_ends a
        ON a.call = c.call AND a.version = c.version AND a.attempt = c.attempt
        WHERE c.kind <> 'cancelled'""",
    "two saves for one call": """
        SELECT label FROM nbdurable.saves GROUP BY call, label HAVING count(*) > 1""",
    "a save of no execution": """
        SELECT label FROM nbdurable.saves
        WHERE execution NOT IN (SELECT id FROM nbdurable.execution_log)""",
    "an outcome whose evidence is not there": """
        SELECT label FROM nbdurable.checkpoints c, unnest([code_evidence, file_evidence]) u(one)
        WHERE octet_length(one) > 0 AND one NOT IN (SELECT evidence FROM nbdurable.evidence)""",
    "an error seen that is not there": """
        SELECT hex(s.call) FROM nbdurable.seen_errors s WHERE NOT EXISTS (
            FROM nbdurable.checkpoints c
            WHERE c.call = s.call AND c.version = s.version AND c.kind = 'error')""",
}


def check(store: Store) -> list[str]:
    """Return a sentence for each invariant of `store` that does not hold.

    Uniqueness of identities and numbers, references between tables, known kinds
    and states, every signature, the content of every large buffer, that a decision has
    its winner's number, and that no step that lost a plain select has a lower one.
    """
    return [*check_content(store), *_signatures(store)]


def check_content(store: Store) -> list[str]:
    """Return what `check` finds, signatures aside: what must hold before a store is signed."""
    return [*_relations(store), *_large_values(store)]


def _relations(store: Store) -> Iterator[str]:
    for sentence, query in _QUERIES.items():
        for (what,) in store.rows(query):
            yield f"{sentence}: {what}"
    rows = store.rows("SELECT DISTINCT evidence FROM nbdurable.evidence")
    stored = {digest for (digest,) in rows}
    for digest in sorted(stored - evidence_in(store).keys()):
        yield f"evidence that is not what was signed: {digest.hex()}"
    known = {status.value for status in RunStatus}
    for (status,) in store.rows("SELECT DISTINCT status FROM nbdurable.execution_ends"):
        if status not in known:
            yield f"an execution ended in an unknown state: {status}"


def _large_values(store: Store) -> Iterator[str]:
    rows = store.rows(
        "SELECT label, pieces FROM nbdurable.checkpoints WHERE octet_length(pieces) > 0 "
        "UNION ALL SELECT label, pieces FROM nbdurable.saves WHERE octet_length(pieces) > 0"
    )
    for label, pieces in rows:
        fault = store.objects.fault(pieces, proven=len(pieces))
        if fault:
            yield f"a value that can't be restored: {label}, for {fault}"


def _signatures(store: Store) -> Iterator[str]:
    for (run,) in store.rows("SELECT id FROM nbdurable.run_log"):
        try:
            index = load_index(store, run)
        except UntrustedCheckpointError as error:
            yield str(error)
            continue
        if fault := store.heads.fault(run, index.checkpoints.sum):
            yield f"run {run} is not as it was signed: {fault}"
        for checkpoint in index.checkpoints:
            message = checkpoint_message(store.id, checkpoint)
            if not signature_holds(store.key, checkpoint.signature, message):
                yield f"a checkpoint with a wrong signature: {checkpoint.label}"
        for unsigned in index.unsigned:
            yield f"a decision with a wrong signature: number {unsigned.number}"
        for decisions in index.decisions.values():
            for decision in decisions:
                yield from _decision(index, decision)
    for kind in AMENDMENTS:
        table = TABLE_OF[kind]
        for _, row in amendments(store, kind):
            if not signature_holds(store.key, row.signature, amendment_message(store.id, row)):
                yield f"a row of {table} with a wrong signature"


def _decision(index: ReplayIndex, decision: Decision) -> Iterator[str]:
    plain = decision.key == _plain_select([call for call, _, _ in decision.branches])
    for call, version, _ in decision.branches:
        found = index.checkpoints.get((call, version))
        if found is None:
            continue
        if call == decision.winner and found.number != decision.number:
            yield (
                f"a decision with another number than its winner's: {found.label} has "
                f"{found.number}, the decision {decision.number}"
            )
        elif plain and found.number < decision.number:
            yield (
                f"a decision against the order: {found.label} lost with {found.number}, the "
                f"decision has {decision.number}"
            )


def _plain_select(calls: list[bytes]) -> bytes:
    """Return the identity of a select whose branches are these calls themselves.

    Below a combinator a step may come first and its branch last, so that nothing
    follows from the numbers of steps there.
    """
    parts = (b"select", b"", *sorted(calls))
    laid = b"".join([b"%d:%b" % (len(part), part) for part in parts])
    return hashlib.blake2b(laid, digest_size=16).digest()
