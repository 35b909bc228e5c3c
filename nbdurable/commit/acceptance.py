"""Saved outcomes that count as those of other code: accepted by `--keep`, or renamed.

Invariant: an acceptance is durable before an outcome is given by it, and is told on every
pass until a pass with `--keep`. What is accepted is a value, or a cancellation by a race,
of the same call and the same received values: an error runs again. A handle that is given
an accepted outcome stands for the version that made it, so that decisions over it hold; if
it runs after all, it stands for its own again.

Code and names are found by `accepts`. Of evidence, the state of a file or of code that ran
is accepted: `parts` returns those states, and who compares them tells of those in use.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nbdurable.errors import UntrustedCheckpointError
from nbdurable.fingerprint import still_defined
from nbdurable.handles.call_identity import (
    BODY_PART,
    NAME_MARK,
    body_of,
    call_id,
    call_renamed,
    former_call,
    is_called,
    short_name,
)
from nbdurable.interrupts import SuspendedError
from nbdurable.labels import duration
from nbdurable.records import Accepted, Kind, Part, Reason, Version, Why, digest_of
from nbdurable.store import add_amendment, settle_acceptances, unasked_of, verify_amendment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nbdurable.handles.handle import StepHandle
    from nbdurable.records import Checkpoint
    from nbdurable.store import Batch, Group

    from .reasons import Reasons
    from .state import State

CODE: Final = "code"
EVIDENCE: Final = "evidence: "
"""Begins the kind of an accepted state; the kind of the part of evidence follows."""

_RUNS_AGAIN: Final = (
    Why.CODE_CHANGED, Why.VALUE_CHANGED, Why.FILE_CHANGED, Why.UPSTREAM_CHANGED, Why.LOST,
    Why.UNREADABLE,
)  # fmt: skip
_KEEPABLE: Final = (Why.CODE_CHANGED, Why.VALUE_CHANGED, Why.FILE_CHANGED)


class AcceptedPart(NamedTuple):
    """A state that was accepted, what it is of, and whether it is still told."""

    part: Part
    what: str
    told: bool


class Acceptance:
    """One execution's accepted outcomes, and those that are to be confirmed."""

    def __init__(
        self, state: State, reasons: Reasons, name: str, *, keep: bool, confirm: int | None
    ) -> None:
        self.suspended: SuspendedError | None = None
        self.stopped: set[int] = set()
        """The steps whose bodies were refused something because of it, by their places"""
        self._store = state.store
        self._index = state.index
        self._run = state.run
        self._execution = state.execution
        self._reasons = reasons
        self._observers = state.observers
        self._name = name
        self._keep = keep
        self._confirm = confirm
        self._lock = threading.RLock()
        self._known = {
            (one.kind, one.name, one.before, one.after): one for one in self._index.accepted
        }
        self._told: set[tuple[str, str, bytes, bytes]] = set()
        self._counted: dict[object, tuple[int, float, str]] = {}
        self._lost_codes: dict[bytes, list[bytes]] | None = None
        self._looked: set[tuple[Group, bytes]] = set()
        self._names: dict[bytes, list[str]] | None = None

    # --- what counts as made by other code ------------------------------------------

    def of(
        self,
        handle: StepHandle[Any],
        function: Any,
        parts: Callable[[], Mapping[str, bytes] | None],
    ) -> Checkpoint | None:
        """Return the outcome that is accepted for a call of other code; None if none is.

        ``parts`` returns what the code is made of, None for a step with `version=`. The
        handle stands for its version then;
        also for that of a loser that is not to start.
        """
        index, own = self._index, handle.version
        if own is None or not (self._keep or self._known or index.renamed):
            return None
        code = parts()
        call = handle.call_id
        for found in reversed(index.checkpoints.versions(call)):
            same = digest_of(found.code, own.upstream) == found.version
            if found.kind is Kind.ERROR or found.code == own.code or not same:
                continue
            if self._is_renamed(handle, function, code, found.code) or self._accepts_code(
                handle, code, found.code
            ):
                handle.stand_for(Version(found.code, own.upstream, found.version))
                return found
        if not index.checkpoints.knows(call):
            self._stand_for_loser(handle, own)
        return None

    def accepts(self, kind: str, name: str, before: bytes, after: bytes) -> bool:
        """Tell whether this was accepted, in this pass or an earlier one; an earlier is told."""
        key = kind, name, before, after
        found = self._known.get(key)
        if found is None:
            return False
        with self._lock:
            if key in self._told:
                return True
            self._told.add(key)
        cure = "`%durable restart NAME` starts a run without it"
        verify_amendment(self._index, found, f"what --keep accepted of {name}", cure)
        if not found.settled and not self._keep and found.execution != self._execution:
            self._observers.say(
                f"{_counted(found.outcomes)} of {name} from before {found.what} changed "
                f"{_are(found.outcomes)} used, as --keep accepted; another pass with --keep ends "
                f"this line"
            )
        return True

    def accept(  # noqa: PLR0917 - what an acceptance is made of
        self, kind: str, name: str, before: bytes, after: bytes, what: str, outcomes: int
    ) -> None:
        """Record durably that one counts as the other, and say so."""
        row = Accepted(
            self._run, kind, name, before, after, what, outcomes, self._execution, 0, b""
        )
        self._store.commit(lambda batch: add_amendment(batch, self._index, row))
        with self._lock:
            key = kind, name, before, after
            self._known[key] = row
            self._told.add(key)
        self._observers.say(
            f"--keep: {_counted(outcomes)} of {name} {_are(outcomes)} used as "
            f"{'it is' if outcomes == 1 else 'they are'}, though {what} changed"
        )

    @property
    def keeps(self) -> bool:
        """Whether this pass accepts what does not hold any more."""
        return self._keep

    def parts(self) -> list[AcceptedPart]:
        """Return the states that earlier passes accepted; one that nobody signed is said."""
        found = []
        for one in self._index.accepted:
            if not one.kind.startswith(EVIDENCE):
                continue
            cure = "the next pass with --keep accepts how it is now"
            try:
                verify_amendment(self._index, one, f"that --keep accepted {one.what}", cure)
            except UntrustedCheckpointError as error:
                self._observers.say(str(error))
                continue
            part = Part(one.kind.removeprefix(EVIDENCE), one.name, one.after)
            told = not one.settled and not self._keep
            found.append(AcceptedPart(part, one.what, told))
        return found

    def accept_part(self, part: Part, what: str) -> None:
        """Record durably that a state counts as the one before it, and say so."""
        row = Accepted(
            self._run, EVIDENCE + part.kind, part.name, b"", part.state, what, 0, self._execution,
            0, b"",
        )  # fmt: skip
        key = row.kind, row.name, row.before, row.after
        with self._lock:
            if key in self._known:
                return
            self._store.commit(lambda batch: add_amendment(batch, self._index, row))
            self._known[key] = row
        self._observers.say(f"--keep: what was saved is used as it is, though {what} changed")

    def settle(self, batch: Batch) -> None:
        """End, with a pass of `--keep`, the telling of what earlier ones accepted."""
        if self._keep and any(not one.settled for one in self._index.accepted):
            settle_acceptances(batch, self._run, self._execution, self._execution)

    def _accepts_code(
        self, handle: StepHandle[Any], now: Mapping[str, bytes] | None, code: bytes
    ) -> bool:
        own = handle.code_digest
        with self._lock:
            if self.accepts(CODE, handle.name, code, own):
                return True
            if not self._keep:
                return False
            changed = self._reasons.code_difference(now, code) or "its code"
            count = self._reasons.count_of(handle, code)
            self.accept(CODE, handle.name, code, own, changed, count)
            return True

    def _stand_for_loser(self, handle: StepHandle[Any], own: Version) -> None:
        """Let a loser of accepted code that has no outcome stay unstarted."""
        codes = [
            before
            for kind, name, before, after in self._known
            if (kind, name, after) == (CODE, handle.name, own.code)
        ]
        if self._keep:
            codes += self._codes_of_losers().get(handle.call_id, ())
        for code in codes:
            version = digest_of(code, own.upstream)
            if code != own.code and (handle.call_id, version) in self._index.losers:
                handle.stand_for(Version(code, own.upstream, version))
                return

    def _codes_of_losers(self) -> dict[bytes, list[bytes]]:
        if self._lost_codes is None:
            self._lost_codes = {}
            for call, code in self._index.loser_codes:
                self._lost_codes.setdefault(call, []).append(code)
        return self._lost_codes

    # --- names --------------------------------------------------------------------

    def former(  # noqa: PLR0917 - what a call is made of
        self, namespace: bytes, name: str, called: str, inputs: bytes, count: int, code: bytes
    ) -> bytes | None:
        """Return the identity that an unknown call has in the store under an earlier name."""
        index, found = self._index, None
        if code in index.code_parts:
            found = former_call(index, namespace, called, inputs, count, code)
        if found is None and index.renamed:
            found = call_renamed(index, namespace, called, inputs, count)
        if found is None and "#" in called and (self._keep or self._known):
            found = self._inner_call(namespace, name, called, inputs, count, code)
        return found

    def _inner_call(  # noqa: PLR0917 - likewise
        self, namespace: bytes, name: str, called: str, inputs: bytes, count: int, code: bytes
    ) -> bytes | None:
        """Return the call of an inner function, whose own code belongs to it, with other code."""
        where, _, captured = called.split("#")
        for before in self._index.code_parts:
            if not self._keep and (CODE, name, before, code) not in self._known:
                continue
            for other in self._names_of(before):
                parts = other.split("#")
                if other == called or (parts[0], parts[-1]) != (where, captured):
                    continue
                identity = call_id(namespace, other, inputs, count)
                newest = self._index.checkpoints.newest(identity)
                if newest is not None and newest.kind is not Kind.ERROR:
                    return identity
        return None

    def _is_renamed(
        self, handle: StepHandle[Any], function: Any, now: Mapping[str, bytes] | None, code: bytes
    ) -> bool:
        """Tell whether this code is the handle's, but for the function's name."""
        return bool(self._index.renamed) and self._same_body(handle, function, now, code)

    def _same_body(
        self, handle: StepHandle[Any], function: Any, now: Mapping[str, bytes] | None, code: bytes
    ) -> bool:
        before = self._index.code_parts.get(code)
        if now is None or before is None or before.get(BODY_PART) != body_of(function):
            return False
        mine = _without_own(dict(now), [handle.name])
        return _without_own(before, self._names_of(code)) == mine

    def _names_of(self, code: bytes) -> list[str]:
        """Return the qualified names under which a code was saved."""
        parts = self._index.code_parts.get(code, ())
        return [
            part.removeprefix(NAME_MARK)
            for part in parts
            if part.startswith(NAME_MARK) and part != BODY_PART
        ]

    def renamed_from(self, handle: StepHandle[Any]) -> tuple[str, int, float] | None:
        """Return the vanished name whose outcomes have this body, their count, their seconds.

        Looked for where a step has none at all under its name, once for a code.
        """
        group = handle.namespace, handle.name
        key = group, handle.code_digest
        if key in self._looked or group in self._index.checkpoints.groups():
            return None
        self._looked.add(key)
        work = handle.life.work
        for old in self._names_in().get(handle.namespace, ()):
            namespace = handle.namespace
            newest = self._index.checkpoints.calls((namespace, old))
            found = [*filter(None, map(self._index.checkpoints.newest, newest))]
            for code in dict.fromkeys(one.code for one in found):
                names = [name for name in self._names_of(code) if is_called(name, old)]
                if not names or any(map(still_defined, names)):
                    continue
                if work is not None and self._same_body(
                    handle, work.function, work.code_parts(), code
                ):
                    seconds = [one.seconds for one in found if one.code == code]
                    return old, len(seconds), sum(seconds)
        return None

    def _names_in(self) -> dict[bytes, list[str]]:
        """Return the names of the steps with outcomes, by the namespace of their calls."""
        if self._names is None:
            self._names = {}
            for namespace, name in tuple(self._index.checkpoints.groups()):
                self._names.setdefault(namespace, []).append(name)
        return self._names

    # --- what would run again -----------------------------------------------------

    def refuse_suspended(self, parent: int | None) -> None:
        """Raise the suspension, if there is one, in the cell's code or in a step's body.

        Raises:
            SuspendedError: The execution is suspended.
        """
        if self.suspended is not None:
            if parent is not None:
                self.stopped.add(parent)
            raise self.suspended

    def confirm(self, handle: StepHandle[Any]) -> None:
        """Count a step that is about to run among the saved outcomes that run again.

        Raises:
            SuspendedError: They are more than `configure(confirm=...)` lets run unasked.
        """
        if self.suspended is not None:
            raise self.suspended
        reason = handle.life.reason
        assert reason is not None
        renamed = None
        if reason.why in {Why.NEW, Why.ARGUMENT_CHANGED}:
            if (renamed := self.renamed_from(handle)) is None:
                return
            old, count, _ = renamed
            said = (
                f"renamed? `{handle.name}` has the body of `{old}`: `%durable rename {old} "
                f"{handle.name}` takes {_counted(count, '')} over"
            )
            self._observers.say(said)
        elif reason.why not in _RUNS_AGAIN:
            return
        if self._confirm is None:
            return
        with self._lock:
            key, counted = self._of(handle, reason)
            if renamed is not None:
                counted = renamed[1], renamed[2], said
            self._counted.setdefault(key, counted)
            total = sum(count for count, _, _ in self._counted.values())
            if total > self._confirm:
                self.suspended = self._suspension(total)
                raise self.suspended

    def _of(self, handle: StepHandle[Any], reason: Reason) -> tuple[object, tuple[int, float, str]]:
        """Return what a step that runs again is counted under, and what there is to count."""
        older = self._index.checkpoints.newest(handle.call_id)
        changed = reason.why in {Why.CODE_CHANGED, Why.VALUE_CHANGED}
        # If the code that changed is only code that the body ran, the outcome was made by the
        # step's own code as it is now.
        if not changed or (older is not None and older.code == handle.code_digest):
            seconds = 0.0 if older is None else older.seconds
            return handle.call_id, (1, seconds, f"{handle.name}: {reason}")
        skipped = unasked_of(self._store, self._run)
        found = [
            one
            for one in self._reasons.newest_of(handle)
            if one.code != handle.code_digest and (one.call, one.version) not in skipped
        ]
        key = handle.namespace, handle.name, handle.code_digest
        seconds = sum(one.seconds for one in found)
        return key, (max(1, len(found)), seconds, f"{handle.name}: {reason}")

    def _suspension(self, total: int) -> SuspendedError:
        seconds = sum(seconds for _, seconds, _ in self._counted.values())
        whys = list(dict.fromkeys(why for _, _, why in self._counted.values()))
        more = f" and {len(whys) - 3} more" if len(whys) > 3 else ""  # noqa: PLR2004
        keep = (
            f"`%%durable {self._name} --keep` uses them as they are; "
            if any(kind in why for kind in _KEEPABLE for why in whys)
            else ""
        )
        return SuspendedError(
            f"{self._name} is suspended before {_counted(total)}, which took {duration(seconds)}, "
            f"would run again ({'; '.join(whys[:3])}{more}): {keep}`%durable config "
            f"confirm=default`, or configure(confirm=None), runs them again"
        )


def _without_own(parts: dict[str, bytes], names: list[str]) -> dict[str, bytes]:
    """Return the parts of a code but for the function's own and its names."""
    own = {f"{short_name(name)}()" for name in names} | {f"{name}()" for name in names}
    return {
        part: digest
        for part, digest in parts.items()
        if not part.startswith(NAME_MARK) and part not in own
    }


def _counted(number: int, saved: str = "saved ") -> str:
    return f"{number:,} {saved}{'outcome' if number == 1 else 'outcomes'}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
