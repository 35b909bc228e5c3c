"""Runs and steps that have another name now.

Invariant: a call keeps its identity, so whatever hangs on it holds; a row is signed anew
only after its signature was found to hold.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nbdurable.codec.signing import sign, signature_holds
from nbdurable.records import Renamed, Save

from .amendments import add_amendment, amendment_message
from .heads import SIGNATURE_BYTES
from .index import checkpoint_message
from .rows import columns_of
from .runs import load_index
from .signed import REMEMBERED, remembered_message

if TYPE_CHECKING:
    from nbdurable.records import Checkpoint

    from .database import Store
    from .index import ReplayIndex
    from .journal import Batch

    _Rows = dict[str, list[dict[str, Any]]]


def rename_run(store: Store, old: str, new: str) -> None:
    """Rename every run called `old`.

    Raises:
        StoreError: It could not be written; nothing has changed.
    """
    runs = store.rows("SELECT id, created FROM nbdurable.run_log WHERE name = ?", [old])
    for run, _ in runs:
        store.heads.verify(run, old)
    signatures = [
        sign(store.key, remembered_message(store.id, "run_log", (run, new, created)))
        for run, created in runs
    ]

    def write(batch: Batch) -> None:
        batch.execute(
            "UPDATE nbdurable.run_log SET name = ?, signature = t.signature FROM "
            "(SELECT unnest(?::VARCHAR[]) AS id, unnest(?::BLOB[]) AS signature) t "
            "WHERE run_log.id = t.id",
            [new, [run for run, _ in runs], signatures],
        )
        for run, _ in runs:
            batch.recount(run)

    store.commit(write)


def runs_of_step(store: Store, name: str) -> dict[str, str]:
    """Return the ids of the runs with outcomes of a step of that name, with their names."""
    return dict(
        store.rows(
            "SELECT DISTINCT r.id, r.name FROM nbdurable.checkpoints c "
            "JOIN nbdurable.execution_log e ON e.id = c.execution "
            "JOIN nbdurable.run_log r ON r.id = e.run WHERE c.name = ? ORDER BY r.id",
            [name],
        )
    )


def codes_of_step(store: Store, run: str, name: str) -> list[bytes]:
    """Return the digests of the codes that outcomes of a step were made with."""
    rows = store.rows(
        "SELECT DISTINCT code FROM nbdurable.checkpoints WHERE name = ? AND execution IN "
        "(SELECT id FROM nbdurable.execution_log WHERE run = ?)",
        [name, run],
    )
    return [code for (code,) in rows]


def parts_of_codes(store: Store, codes: list[bytes]) -> dict[bytes, dict[str, bytes]]:
    """Return what codes are made of: the parts' names, with their digests."""
    found: dict[bytes, dict[str, bytes]] = {}
    for code, part, digest in store.rows(
        "SELECT code, part, digest FROM nbdurable.codes WHERE list_contains(?, code)", [codes]
    ):
        found.setdefault(code, {})[part] = digest
    return found


def renamed_to(store: Store, run: str, new: str) -> list[str]:
    """Return the qualified names that a step of this name had before."""
    rows = store.rows("SELECT old FROM nbdurable.renames WHERE run = ? AND new = ?", [run, new])
    return [old for (old,) in rows]


def rename_step(store: Store, runs: dict[str, list[str]], old: str, new: str, *, now: float) -> int:
    """Rename a step's outcomes, and let calls of the new name find them.

    Args:
        store: Where they are.
        runs: By the run's id, the qualified names that the step's calls have.
        old: The step's name so far.
        new: Its name from now on.
        now: The clock's time.

    Returns:
        How many outcomes have the other name now.

    Raises:
        UntrustedCheckpointError: One of them is not signed by this user's key.
        StoreError: It could not be written; nothing has changed.
    """
    # All is read before the transaction: who writes one holds the lock that a reader needs.
    found: list[tuple[ReplayIndex, list[Checkpoint], _Rows]] = []
    for run in runs:
        index = load_index(store, run)
        store.heads.verify(run, run, index.checkpoints.sum)
        outcomes = [one for one in index.checkpoints if one.name == old]
        for one in outcomes:
            index.verify(one)
        found.append((index, outcomes, _others(store, run, old)))

    def write(batch: Batch) -> None:
        for (run, names), (index, outcomes, others) in zip(runs.items(), found, strict=True):
            _write_outcomes(batch, index, outcomes, old, new)
            _write_others(store, batch, run, others, (old, new))
            batch.recount(run)
            for name in names:
                add_amendment(batch, index, Renamed(run, name, new, now, b""))

    store.commit(write)
    return sum(len(outcomes) for _, outcomes, _ in found)


def _write_outcomes(
    batch: Batch, index: ReplayIndex, outcomes: list[Checkpoint], old: str, new: str
) -> None:
    renamed = [replace(one, name=new, label=_relabelled(one.label, old, new)) for one in outcomes]
    batch.execute(
        "UPDATE nbdurable.checkpoints SET name = ?, label = t.label, signature = t.signature FROM "
        "(SELECT unnest(?::BLOB[]) AS call, unnest(?::BLOB[]) AS version, "
        " unnest(?::BIGINT[]) AS number, unnest(?::VARCHAR[]) AS label, "
        " unnest(?::BLOB[]) AS signature) t WHERE checkpoints.call = t.call "
        "AND checkpoints.version = t.version AND checkpoints.number = t.number",
        [
            new,
            [one.call for one in renamed],
            [one.version for one in renamed],
            [one.number for one in renamed],
            [one.label for one in renamed],
            [sign(index.key, checkpoint_message(index.store, one)) for one in renamed],
        ],
    )


_OF_RUN = "execution IN (SELECT id FROM nbdurable.execution_log WHERE run = ?)"


def _others(store: Store, run: str, name: str) -> _Rows:
    """Return what stands beside the outcomes of a step, by its table, each row by column."""
    found: _Rows = {}
    for table in ("starts", "attempt_ends", "saves"):
        columns = columns_of(table)
        rows = store.rows(
            f"SELECT * FROM nbdurable.{table} WHERE name = ? AND {_OF_RUN}",  # noqa: S608 - ours
            [name, run],
        )
        if rows:
            found[table] = [dict(zip(columns, row, strict=True)) for row in rows]
    return found


def _write_others(
    store: Store, batch: Batch, run: str, others: _Rows, names: tuple[str, str]
) -> None:
    """Rename what stands beside outcomes, and sign it anew where its signature holds."""
    old, new = names
    for table, rows in others.items():
        batch.execute(f"DELETE FROM nbdurable.{table} WHERE name = ? AND {_OF_RUN}", [old, run])  # noqa: S608 - ours
        for fields in rows:
            before = fields["signature"][:SIGNATURE_BYTES]
            whole = _holds(store, table, fields)
            renamed = {**fields, "name": new, "label": _relabelled(fields["label"], old, new)}
            renamed["signature"] = _signature(store, table, renamed) if whole else before
            batch.lay(table, tuple(renamed.values()))


def _message(store: Store, table: str, fields: dict[str, Any]) -> bytes:
    if table == "saves":
        return amendment_message(store.id, Save(**fields))
    return remembered_message(store.id, table, tuple(fields[one] for one in REMEMBERED[table]))


def _signature(store: Store, table: str, fields: dict[str, Any]) -> bytes:
    return sign(store.key, _message(store, table, fields))


def _holds(store: Store, table: str, fields: dict[str, Any]) -> bool:
    signature = fields["signature"][:SIGNATURE_BYTES]
    return signature_holds(store.key, signature, _message(store, table, fields))


def _relabelled(label: str, old: str, new: str) -> str:
    return f"{new}{label[len(old) :]}" if label == old or label.startswith(f"{old}(") else label
