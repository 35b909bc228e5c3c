"""Changes of committed rows, each for any number of rows in a few statements.

Invariant: a statement costs the same for one row and for ten thousand; without
keys in the tables, one statement a row would read the table once a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbdurable.records import NOBODY

from .rows import AttemptEndRow

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from nbdurable.records import Checkpoint, Decision

    from .journal import Batch
    from .packed import Identity


def correct_whys(batch: Batch, whys: Sequence[tuple[str, Identity]]) -> None:
    """Replace why steps ran, by their call and version."""
    batch.execute(
        "UPDATE nbdurable.checkpoints SET why = t.why FROM "
        "(SELECT unnest(?::VARCHAR[]) AS why, unnest(?::BLOB[]) AS call, "
        " unnest(?::BLOB[]) AS version) t "
        "WHERE checkpoints.call = t.call AND checkpoints.version = t.version",
        [
            [why for why, _ in whys],
            [call for _, (call, _) in whys],
            [version for _, (_, version) in whys],
        ],
    )


def record_packages(batch: Batch, execution: int, packages: str) -> None:
    """Save which packages the outcomes of an execution need, with their versions."""
    batch.execute(
        "UPDATE nbdurable.execution_log SET packages = ? WHERE id = ?", [packages, execution]
    )


def take_out(batch: Batch, run: str, checkpoints: Sequence[Checkpoint]) -> None:
    """Turn checkpoints into concluded attempts; undo the decisions that they closed."""
    conclude(batch, checkpoints)
    undo(batch, run, checkpoints)


def conclude(batch: Batch, checkpoints: Sequence[Checkpoint]) -> None:
    """Turn checkpoints into concluded attempts, whatever they have decided."""
    for found in checkpoints:
        batch.add(
            AttemptEndRow(
                call=found.call,
                version=found.version,
                attempt=found.attempt,
                execution=found.execution,
                name=found.name,
                label=found.label,
                started=found.started,
                seconds=found.seconds,
                ending=found.kind.value,
                error="",
                concluded=True,
            )
        )
    calls = [found.call for found in checkpoints]
    versions = [found.version for found in checkpoints]
    numbers = [found.number for found in checkpoints]
    these = (
        "(SELECT unnest(?::BLOB[]) AS call, unnest(?::BLOB[]) AS version, "
        "unnest(?::BIGINT[]) AS number) t"
    )
    same = "c.call = t.call AND c.version = t.version"
    batch.take_out(
        f"DELETE FROM nbdurable.checkpoints c USING {these} "  # noqa: S608 - constants
        f"WHERE {same} AND c.number = t.number RETURNING c.execution, c.signature",
        [calls, versions, numbers],
    )
    batch.take_out(
        f"DELETE FROM nbdurable.seen_errors c USING {these} WHERE {same} "  # noqa: S608 - constants
        "RETURNING c.execution, c.signature",
        [calls, versions, numbers],
    )


def undo(
    batch: Batch,
    run: str,
    checkpoints: Sequence[Checkpoint],
    within: Collection[bytes] | None = None,
) -> None:
    """Undo the decisions that checkpoints closed.

    What as_completed left has no winner; it hangs on every outcome given before. With
    `within`, the calls of one body, only what that body left.
    """
    numbers = [found.number for found in checkpoints]
    batch.take_out(
        "DELETE FROM nbdurable.decision_log WHERE (number IN (SELECT unnest(?::BIGINT[])) "
        "OR (winner = ? AND number >= ? AND "
        "(? OR array_slice(branches, 1, 16) IN (SELECT unnest(?::BLOB[]))))) "
        "AND execution IN (SELECT id FROM nbdurable.execution_log WHERE run = ?) "
        "RETURNING execution, signature",
        [numbers, NOBODY, min(numbers), within is None, list(within or ()), run],
    )


def drop_decisions(batch: Batch, run: str, keys: Sequence[bytes]) -> None:
    """Take out what was decided under these keys."""
    batch.take_out(
        "DELETE FROM nbdurable.decision_log WHERE key IN (SELECT unnest(?::BLOB[])) "
        "AND execution IN (SELECT id FROM nbdurable.execution_log WHERE run = ?) "
        "RETURNING execution, signature",
        [list(keys), run],
    )


def unsee(batch: Batch, identities: Sequence[Identity]) -> None:
    """Take back that errors were seen."""
    batch.take_out(
        "DELETE FROM nbdurable.seen_errors s USING "
        "(SELECT unnest(?::BLOB[]) AS call, unnest(?::BLOB[]) AS version) t "
        "WHERE s.call = t.call AND s.version = t.version RETURNING s.execution, s.signature",
        [[call for call, _ in identities], [version for _, version in identities]],
    )


def drop_unsigned(batch: Batch, decisions: Sequence[Decision]) -> None:
    """Take out decisions whose signature does not hold: they are made anew."""
    batch.take_out(
        "DELETE FROM nbdurable.decision_log d USING (SELECT unnest(?::BLOB[]) AS signature, "
        "unnest(?::BIGINT[]) AS execution, unnest(?::BLOB[]) AS key) t "
        "WHERE array_slice(d.signature, 1, 32) = t.signature AND d.execution = t.execution "
        "AND d.key = t.key RETURNING d.execution, d.signature",
        [
            [one.signature for one in decisions],
            [one.execution for one in decisions],
            [one.key for one in decisions],
        ],
    )
