"""Evidence by its digest: what earlier executions saved, and what this one saves, once each.

Invariant: what a digest stands for never changes; it is in the transaction of the first
outcome that has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbdurable.records import Part, digest_of_parts
from nbdurable.store.rows import EvidenceRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import FunctionType

    from nbdurable.fingerprint import Covered, Print
    from nbdurable.store import Batch

_UNREADABLE = (Part("unreadable", "its evidence", b""),)


class KeptEvidence:
    """One execution's pieces of evidence."""

    def __init__(self, saved: Mapping[bytes, tuple[Part, ...]]) -> None:
        self._parts = {b"": (), **saved}
        self._digests: dict[tuple[Part, ...], bytes] = {(): b""}
        self._saved = set(self._parts)
        self._code: dict[bytes, Covered] = {}
        self.files: list[tuple[float, float, bytes]] = []
        """Of this execution's bodies that used files: start, end, and the digest of these."""

    def parts(self, digest: bytes) -> tuple[Part, ...]:
        """Return what a digest stands for; a part that never holds where that is gone."""
        return self._parts.get(digest, _UNREADABLE)

    def learn(self, saved_as: bytes, code: Print) -> None:
        """Take in the code of a step that a body starts: it is evidence for what started it."""
        if code.covered is not None:
            self._code[saved_as] = code.covered

    def functions(self, code: bytes) -> list[FunctionType]:
        """Return the functions that a code that was learned is of; of any other, none."""
        covered = self._code.get(code)
        return covered.functions() if covered is not None else []

    def save(self, parts: Iterable[Part], batch: Batch) -> bytes:
        """Add parts to a transaction, unless they are saved, and return their digest."""
        given = tuple(parts)
        digest = self._digests.get(given)
        if digest is None:
            digest = self._digests[given] = digest_of_parts(set(given))
            self._parts.setdefault(digest, tuple(sorted(set(given))))
        if digest not in self._saved:
            self._saved.add(digest)
            for part in self._parts[digest]:
                batch.add(EvidenceRow(digest, part.kind, part.name, part.state))
        return digest

    def save_files(
        self, parts: Iterable[Part], batch: Batch, started: float, seconds: float
    ) -> bytes:
        """Do as `save` does with what a body used of files."""
        digest = self.save(parts, batch)
        self.files.append((started, started + seconds, digest))
        return digest
