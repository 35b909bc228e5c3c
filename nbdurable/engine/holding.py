"""Which saved outcomes still hold by their evidence, and what is told of those that are used.

Invariant: of the outcomes of one call, code and received values the newest that holds is
used. Where none does, the call has a version that stands for how things are now, so it is
treated as an edited step is, and an edit back finds what was saved before. Only outcomes of
a run that had finished are given up for a file (CONTRACT section 3).
"""

from __future__ import annotations

import json
import math
import threading
from typing import TYPE_CHECKING, Any

from nbdurable.evidence import (
    FILE_KINDS,
    NAMED,
    SETTING_KINDS,
    WATCHED,
    WROTE,
    Comparison,
    Left,
    changed,
    file_state,
    is_gone,
    is_setting_now,
    shown,
    told_settings,
)
from nbdurable.fingerprint import Places
from nbdurable.handles.handle import StepHandle
from nbdurable.labels import printable
from nbdurable.records import Kind, Part, Reads, Version, Why, digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from nbdurable.commit.acceptance import Acceptance
    from nbdurable.commit.kept_evidence import KeptEvidence
    from nbdurable.commit.reasons import Reasons
    from nbdurable.handles.handle import Handle
    from nbdurable.records import Checkpoint
    from nbdurable.store import Opened

_MOST_TOLD = 6
_RERUN: dict[str, frozenset[str]] = {
    Reads.UNSET: frozenset({NAMED}),
    Reads.RERUN: frozenset({NAMED, WATCHED}),
}
_CODE = "accepted code"
_NOTHING: frozenset[str] = frozenset()

Told = tuple[StepHandle[Any], str]
"""A step, and what is told of its outcome, with braces in its place."""


class Holding:
    """One execution's look at the evidence of saved outcomes."""

    def __init__(
        self,
        opened: Opened,
        kept: KeptEvidence,
        reasons: Reasons,
        acceptance: Acceptance,
    ) -> None:
        """Look at what an execution starts from.

        Args:
            opened: What that is.
            kept: The evidence.
            reasons: Who says why a step runs again.
            acceptance: Where `--keep` records how things are now, and what it recorded.
        """
        self._acceptance = acceptance
        self._kept_states = acceptance.parts()
        self._accepted = tuple(one.part for one in self._kept_states)
        self._saved = opened.index.checkpoints
        self._finished = opened.finished
        self._kept = kept
        self._reasons = reasons
        self._left: Left | None = None
        self._left_lock = threading.Lock()
        self._noted = 0  # outcomes of this execution whose files are in `_left`
        self._ignoring: set[int] = set()
        self._lock = threading.Lock()
        self._comparison = Comparison(Places())
        self._compared: dict[bytes, list[Part]] = {}
        self._nows: dict[bytes, bytes] = {}

    def chosen(self, handle: StepHandle[Any], version: Version, reads: str) -> Version:
        """Return the version under which a call's outcome is looked for, and saved.

        Args:
            handle: The step that is called.
            version: Its code and what it received.
            reads: Its option: what a file that has changed does.
        """
        if reads == Reads.IGNORE:
            self._ignoring.add(handle.place)
        call = handle.call_id
        newest = self._saved.newest(call)
        if newest is None or (
            newest.version == version.id and not newest.code_evidence and not newest.file_evidence
        ):
            return version
        found = [one for one in self._saved.versions(call) if version.id in {one.base, one.version}]
        if not any(one.code_evidence or one.file_evidence or one.base for one in found):
            return version
        return self._newest_that_holds(handle, version, found[::-1], reads)

    def _newest_that_holds(
        self, handle: StepHandle[Any], version: Version, found: list[Checkpoint], reads: str
    ) -> Version:
        """Return the version of one of the outcomes, newest first, or one that none has."""
        gone: list[Part] = []
        names: dict[tuple[str, str], Part] = {}
        bare: list[Checkpoint] = []
        codes: set[bytes] = set()
        for one in found:
            counted = self._counted_files(one, reads)
            unheld = [*self._changed_code(one.code_evidence), *changed(counted, self._left_files)]
            if not counted and not one.code_evidence and one.base:
                bare.append(one)  # a cancellation: it stands for how things were
            elif not unheld:
                return _as(version, one)
            if not gone or len(unheld) < len(gone):
                gone = unheld
            names |= {part[:2]: part for part in counted}
            codes.add(one.code_evidence)
        now = [
            field
            for part in sorted(names.values())
            for field in (part.kind.encode(), part.name.encode(), file_state(part).digest)
        ]
        now += [digest + self._code_now(digest) for digest in sorted(codes)]
        fresh = digest_of(version.id, *now)
        for one in bare:
            if one.version == fresh:
                return _as(version, one)
        kept = next((one for one in found if one.kind is Kind.VALUE), None)
        if self._acceptance.keeps and kept is not None:
            self._accept(handle, kept, reads)
            return _as(version, kept)
        while (handle.call_id, fresh) in self._saved:
            fresh = digest_of(fresh, b"again")
        self._give_up(handle, gone, found, reads)
        return Version(version.code, version.upstream, fresh, version.id)

    def _accept(self, handle: StepHandle[Any], found: Checkpoint, reads: str) -> None:
        """Let an outcome hold from now on, as long as things stay as they are now."""
        for part in changed(self._counted_files(found, reads), self._left_files):
            now = Part(part.kind, part.name, self._now(part))
            self._acceptance.accept_part(now, f"{_shown(part)}, which {handle.name} used,")
        if self._changed_code(found.code_evidence):
            digest = found.code_evidence
            names = ", ".join(shown(self._changed_code(digest), self._kept.parts(digest)))
            now = Part(_CODE, digest.hex(), self._code_now(digest))
            self._acceptance.accept_part(now, f"{names}, which {handle.name} ran,")

    def _counted_files(self, found: Checkpoint, reads: str) -> list[Part]:
        """Return the parts of an outcome's evidence of files that can give it up."""
        kinds = _RERUN.get(reads, _NOTHING) if found.execution <= self._finished else _NOTHING
        return [one for one in self._kept.parts(found.file_evidence) if one.kind in kinds]

    def _changed_code(self, digest: bytes) -> list[Part]:
        """Return what changed of code that ran; compared once in an execution."""
        if not digest or self._accepts_code(digest):
            return []
        with self._lock:
            known = self._compared.get(digest)
            if known is None:
                parts = self._kept.parts(digest)
                known = [one for one in parts if one.kind == "unreadable"]
                known += self._comparison.changed(parts)
                self._compared[digest] = known
            return known

    def _accepts_code(self, digest: bytes) -> bool:
        accepted = [one for one in self._accepted if one[:2] == (_CODE, digest.hex())]
        return any(one.state == self._code_now(digest) for one in accepted)

    def _code_now(self, digest: bytes) -> bytes:
        """Return how the code is now that some evidence is of."""
        if not digest:
            return b""
        with self._lock:
            if digest not in self._nows:
                self._nows[digest] = self._comparison.now(self._kept.parts(digest))
            return self._nows[digest]

    @staticmethod
    def _now(part: Part) -> bytes:
        """Return how things are now that a part says something of."""
        return file_state(part).packed()

    @property
    def _left_files(self) -> Left:
        """How the run itself last left each file that it wrote, this execution included."""
        with self._left_lock:
            if self._left is None:
                self._left = Left()
                for part in self._accepted:
                    if part.kind in FILE_KINDS:
                        self._left.note(part, -math.inf, -math.inf)
                written = [one for one in self._saved if one.file_evidence]
                for one in sorted(written, key=lambda one: one.number):
                    ended = one.started + one.seconds
                    self._note_left(self._left, one.started, ended, one.file_evidence)
            now = self._kept.files
            while self._noted < len(now):
                self._note_left(self._left, *now[self._noted])
                self._noted += 1
            return self._left

    def _note_left(self, left: Left, started: float, ended: float, digest: bytes) -> None:
        for part in self._kept.parts(digest):
            if part.kind == WROTE:
                left.note(part, started, ended)

    # --- why, and what is told ------------------------------------------------------

    def _give_up(
        self, handle: StepHandle[Any], gone: list[Part], found: list[Checkpoint], reads: str
    ) -> None:
        """Say why a step runs again, and of how many outcomes that is so."""
        files = [_how(part) for part in gone if part.kind in FILE_KINDS]
        digests = {one.code_evidence for one in found}
        evidence = [part for digest in digests for part in self._kept.parts(digest)]
        code = shown([part for part in gone if part.kind not in FILE_KINDS], evidence)
        why = Why.CODE_CHANGED if code else Why.FILE_CHANGED
        detail = ", ".join(dict.fromkeys([*code, *files]))

        def unheld(one: Checkpoint) -> bool:
            counted = self._counted_files(one, reads)
            return bool(self._changed_code(one.code_evidence) or changed(counted, self._left_files))

        self._reasons.unheld(handle, why, detail, unheld)

    def tell(self, handles: Iterable[Handle[Any]], say: Callable[[str], object]) -> str:
        """Say in one line what is to be told of this pass; return it by call, to be asked for."""
        told = self.told(handles)
        if told:
            say(_sentence(told))
        kept = [one.what for one in self._kept_states if one.told and self._is_now(one.part)]
        if kept:
            rest = f" and {len(kept) - _MOST_TOLD} more" if len(kept) > _MOST_TOLD else ""
            say(
                f"--keep accepted what was saved before this changed: "
                f"{'; '.join(one.rstrip(',') for one in kept[:_MOST_TOLD])}{rest}; another pass "
                f"with --keep ends this line"
            )
        return _as_text(told)

    def _is_now(self, part: Part) -> bool:
        """Tell whether things are as they were when that was accepted."""
        if part.kind == _CODE:
            return self._code_now(bytes.fromhex(part.name)) == part.state
        if part.kind in SETTING_KINDS:
            return is_setting_now(part)
        return not changed([part], Left())

    def told(self, handles: Iterable[Handle[Any]]) -> list[Told]:
        """Return what a person is told of each outcome of this pass, run or replayed."""
        found = [
            (handle, handle.life.checkpoint)
            for handle in handles
            if isinstance(handle, StepHandle) and handle.life.checkpoint is not None
        ]
        found = [(handle, one) for handle, one in found if one.file_evidence]
        if not found:
            return []
        left = self._left_files
        return [
            (handle, text)
            for handle, one in found
            for text in self._told_of(one, left, ignoring=handle.place in self._ignoring)
        ]

    def _told_of(self, found: Checkpoint, left: Left, *, ignoring: bool) -> Iterator[str]:
        parts = self._kept.parts(found.file_evidence)
        for told in told_settings(parts):
            if told.now not in self._accepted:
                if self._acceptance.keeps:
                    self._acceptance.accept_part(told.now, f"{told.name}, which was used,")
                yield told.text
        for part in changed(parts, left) if not ignoring else ():
            if self._acceptance.keeps:
                now = Part(part.kind, part.name, self._now(part))
                self._acceptance.accept_part(now, f"{_shown(part)}, which was read or written,")
            used = "wrote" if part.kind == WROTE else "read"
            gone = "is gone" if is_gone(part) else "has changed since"
            yield f"{_shown(part)}, which {{}} {used}, {gone}"


def _sentence(told: list[Told]) -> str:
    """Return one line for all that is told in a cell."""
    by_text: dict[str, list[str]] = {}
    for handle, text in told:
        by_text.setdefault(text, []).append(handle.label)
    items = []
    for text, labels in by_text.items():
        unique = list(dict.fromkeys(labels))
        more = f" and {len(unique) - 1} more" if len(unique) > 1 else ""
        items.append(text.replace("{}", f"{unique[0]}{more}", 1).replace("{}", "it"))
    rest = len(items) - _MOST_TOLD
    shown = items[:_MOST_TOLD] + ([f"and {rest} more"] if rest > 0 else [])
    return f"told, and not run again for it: {'; '.join(shown)}"


def _as_text(told: list[Told]) -> str:
    """Return what is told of each outcome, as JSON, for who asks the store later."""
    by_call: dict[str, list[str]] = {}
    for handle, text in told:
        by_call.setdefault(handle.call_id.hex(), []).append(text.replace("{}", "it"))
    return json.dumps({call: "; ".join(texts) for call, texts in by_call.items()}) if told else ""


def _as(version: Version, found: Checkpoint) -> Version:
    return Version(version.code, version.upstream, found.version, found.base)


def _shown(part: Part) -> str:
    return printable(part.name)


def _how(part: Part) -> str:
    return f"{_shown(part)} is gone" if is_gone(part) else _shown(part)
