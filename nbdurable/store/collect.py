"""What a store no longer needs: found, sized, taken out; its file made small again.

Invariant: a run that has not finished loses nothing; of one that has, the outcomes
that its last execution used stay. All rows go in one transaction, and after it the
object files that no row names any more. A file is made small by copying what is left
to a new one, which takes its name when it is complete, so whoever dies in between
leaves the old one.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from nbdurable.records import RunStatus

from .disk import as_store_error, file_error
from .files import remove as remove_file
from .index import unpack_members, unpack_used
from .objects import sync_folder
from .paths import MEMORY
from .runs import summaries

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .database import Store
    from .journal import Batch
    from .packed import Identity

_WORTH_BYTES = 1 << 20
"""A file that would become smaller by less is left as it is."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """What can be taken out of one run: all of it, or outcomes that were superseded.

    ``size`` counts the bytes of its rows; ``created`` is the run's beginning in seconds
    since the epoch.
    """

    run: str
    name: str
    created: float
    whole: bool
    outcomes: int
    size: int
    identities: tuple[Identity, ...] = ()


def garbage(store: Store, *, before: float | None = None) -> list[Garbage]:
    """Find the runs that a newer one of their name has replaced, and superseded outcomes.

    An outcome is superseded when its call has a newer one, of other code or of other
    values received, and the last execution did not go back to it.

    Args:
        store: Where to look; nothing is changed.
        before: Leave alone what was last saved after this time (seconds since the epoch).
    """
    found = []
    newest: set[str] = set()
    for summary in summaries(store):
        if summary.name in newest:
            outcomes, size, last = store.rows(_SIZE, [summary.id])[0]
            if before is None or (last or summary.last_started) < before:
                found.append(
                    Garbage(summary.id, summary.name, summary.created, True, outcomes, size or 0)
                )
            continue
        newest.add(summary.name)
        if summary.status is RunStatus.FINISHED and (
            older := _superseded(store, summary.id, before)
        ):
            identities = tuple((call, version) for call, version, _ in older)
            size = sum(size for _, _, size in older)
            found.append(
                Garbage(
                    summary.id,
                    summary.name,
                    summary.created,
                    whole=False,
                    outcomes=len(older),
                    size=size,
                    identities=identities,
                )
            )
    return found


_OF_RUN = "IN (SELECT id FROM nbdurable.execution_log WHERE run = ?)"
_BYTES = "octet_length(payload) + octet_length(pieces) + octet_length(encode(output))"

_SIZE = f"""
    SELECT count(*), sum({_BYTES}), max(started + seconds) FROM nbdurable.checkpoints
    WHERE execution {_OF_RUN}"""  # noqa: S608 - constants

_SUPERSEDED = f"""
    SELECT call, version, {_BYTES} FROM nbdurable.checkpoints
    WHERE execution {_OF_RUN}
    QUALIFY number < max(number) OVER (PARTITION BY call) AND started + seconds < ?"""  # noqa: S608 - constants


def _superseded(store: Store, run: str, before: float | None) -> list[tuple[bytes, bytes, int]]:
    limit = float("inf") if before is None else before
    older = store.rows(_SUPERSEDED, [run, limit])
    if not older:
        return []
    ((reused,),) = store.rows(
        "SELECT x.reused FROM nbdurable.execution_log e "
        "JOIN nbdurable.execution_ends x ON x.execution = e.id "
        "WHERE e.run = ? ORDER BY e.id DESC LIMIT 1",
        [run],
    )
    kept, _ = unpack_used(reused)
    return [(call, version, size) for call, version, size in older if (call, version) not in kept]


def remove(store: Store, found: Sequence[Garbage]) -> None:
    """Take out what `garbage` found, in one transaction.

    Raises:
        StoreError: It could not be written; nothing is gone.
    """
    runs = [one.run for one in found if one.whole]
    superseded = [one for one in found if not one.whole]
    undecided = [key for one in superseded for key in _decisions_over(store, one)]

    for one in superseded:
        store.heads.verify(one.run, one.name)

    def write(batch: Batch) -> None:
        if runs:
            _remove_runs(batch, runs)
        for one in superseded:
            batch.recount(one.run)
        if superseded:
            _remove_outcomes(batch, [pair for one in superseded for pair in one.identities])
        if undecided:
            batch.execute(
                "DELETE FROM nbdurable.decision_log d USING (SELECT unnest(?::BLOB[]) AS key, "
                "unnest(?::BLOB[]) AS branches) t WHERE d.key = t.key AND d.branches = t.branches",
                [[key for key, _ in undecided], [branches for _, branches in undecided]],
            )
        batch.execute(
            "DELETE FROM nbdurable.codes "
            "WHERE code NOT IN (SELECT code FROM nbdurable.checkpoints)",
            [],
        )
        batch.execute(
            "DELETE FROM nbdurable.evidence WHERE evidence NOT IN (SELECT code_evidence "
            "FROM nbdurable.checkpoints UNION ALL SELECT file_evidence FROM nbdurable.checkpoints)",
            [],
        )

    store.commit(write)


def spare_files(store: Store, found: Sequence[Garbage] = ()) -> list[Path]:
    """Return the object files that no outcome has, once what was `found` is taken out.

    Nobody may be running a step of this store meanwhile: a large value is written before
    the row that names it.
    """
    runs = {one.run for one in found if one.whole}
    gone = {pair for one in found for pair in one.identities}
    rows = store.rows(
        "SELECT call, version, run, pieces FROM nbdurable.checkpoints c "
        "JOIN nbdurable.execution_log e ON e.id = c.execution WHERE octet_length(pieces) > 0"
    )
    # What a step has saved of its work is no outcome that could be superseded.
    rows += store.rows(
        "SELECT call, NULL, run, pieces FROM nbdurable.saves s "
        "JOIN nbdurable.execution_log e ON e.id = s.execution WHERE octet_length(pieces) > 0"
    )
    return store.objects.spare(
        pieces
        for call, version, run, pieces in rows
        if run not in runs and (call, version) not in gone
    )


def remove_files(files: Iterable[Path]) -> None:
    """Remove object files that `spare_files` gave.

    Raises:
        StoreError: One of them can't be removed; those after it are still there.
    """
    for file in files:
        try:
            remove_file(file)
        except OSError as error:
            raise file_error(
                error,
                file,
                f"object file {file} can't be removed: {error.strerror or error}; make its folder "
                f"writable and collect again",
            ) from error


def _decisions_over(store: Store, one: Garbage) -> list[tuple[bytes, bytes]]:
    """Return key and branches of the decisions over outcomes that go."""
    gone = set(one.identities)
    rows = store.rows(
        f"SELECT key, branches FROM nbdurable.decision_log WHERE execution {_OF_RUN}",  # noqa: S608 - constants
        [one.run],
    )
    return [
        (key, branches)
        for key, branches in rows
        if any((call, version) in gone for call, version, _ in unpack_members(branches))
    ]


def _remove_runs(batch: Batch, runs: list[str]) -> None:
    these = "(SELECT unnest(?::VARCHAR[]))"
    tables = ("checkpoints", "starts", "attempt_ends", "decision_log", "seen_errors")
    of_steps = ("former_calls", "draws", "contents", "saves", "progress", "failures")
    for table in (*tables, *of_steps, "execution_ends"):
        batch.execute(
            f"DELETE FROM nbdurable.{table} WHERE execution IN "  # noqa: S608 - constants
            f"(SELECT id FROM nbdurable.execution_log WHERE run IN {these})",
            [runs],
        )
    for table in ("redos", "acceptances", "renames", "placements", "heads", "execution_log"):
        batch.execute(f"DELETE FROM nbdurable.{table} WHERE run IN {these}", [runs])  # noqa: S608 - constants
    batch.execute(f"DELETE FROM nbdurable.run_log WHERE id IN {these}", [runs])  # noqa: S608 - constants


def _remove_outcomes(batch: Batch, identities: list[Identity]) -> None:
    parameters = [[call for call, _ in identities], [version for _, version in identities]]
    for table in ("checkpoints", "starts", "attempt_ends", "failures", "seen_errors", "draws"):
        batch.execute(
            f"DELETE FROM nbdurable.{table} c USING "  # noqa: S608 - constants
            "(SELECT unnest(?::BLOB[]) AS call, unnest(?::BLOB[]) AS version) t "
            "WHERE c.call = t.call AND c.version = t.version",
            parameters,
        )


def compact(store: Store) -> int:
    """Return back to the disk what taken out rows have left; the store must be closed then.

    DuckDB keeps the room for later rows. So what is left is copied into a new file,
    which takes the old one's name while the old one is still locked. A database with
    tables of the user's own, or that the user holds open in this process, is left as it
    is: its file is not ours to replace.

    Returns:
        How many bytes smaller the file is.

    Raises:
        StoreError: The copy could not be written; the store is as it was.
    """
    if store.path == MEMORY or store.is_shared or store.foreign_objects():
        return 0
    path = Path(store.path)
    # Who has the lock is alone: what others were copying, they died over.
    drafts = re.compile(re.escape(path.name) + r"\.[0-9a-f]{8}\.compacting(\.wal)?")
    for left in path.parent.glob(f"{glob.escape(path.name)}.*.compacting*"):
        if drafts.fullmatch(left.name) and not left.is_dir():
            left.unlink(missing_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.compacting")
    try:
        store.copy_to(draft)
        draft.chmod(stat.S_IMODE(path.stat().st_mode))
        saved = path.stat().st_size - draft.stat().st_size
        if saved < _WORTH_BYTES:
            return 0
        # Whoever opens the new file has a write-ahead log of that name, which is not ours.
        store.forsake()
        os.replace(draft, path)  # noqa: PTH105 - the one word for it that says "atomic"
        sync_folder(path.parent)
    except duckdb.Error as error:
        store.forsake()
        raise as_store_error(error) from error
    except OSError:
        return 0  # where a file that is open can't be replaced it stays as large as it was
    finally:
        for left in (draft, draft.with_name(f"{draft.name}.wal")):
            with contextlib.suppress(OSError):
                left.unlink(missing_ok=True)
    return saved
