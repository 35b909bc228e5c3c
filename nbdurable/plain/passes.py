"""One pass through cells over a run in a store: what it finds there, and what it saves.

Invariant: the rows are those of a run of steps, signed and counted as theirs; the store is open
only while a cell is handled, or while what it saves is being written.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nbdurable import store as stores
from nbdurable.api.configuration import clock
from nbdurable.api.open_stores import acquire, release
from nbdurable.codec.values import decode, encode
from nbdurable.evidence import FILE_KINDS, WROTE, FileRules, Left, changed, same_content
from nbdurable.labels import printable
from nbdurable.output import capture as output
from nbdurable.records import NOT_SAVED, Checkpoint, Kind, Part, RunStatus, digest_of
from nbdurable.store.rows import AttemptEndRow, ExecutionEndRow

from .record import CELL, NAME, Found, call_of, kept_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nbdurable.api.open_stores import Open
    from nbdurable.errors import DurableError
    from nbdurable.evidence import Recorder
    from nbdurable.records import Payload
    from nbdurable.store import Batch, Opened, Store

    from .record import Kept, Ran

_WORTH_A_COMMIT: Final = 0.1
"""What took so many seconds is committed at once."""

_TOGETHER_SECONDS: Final = 0.1
"""What took less is committed so much later, with what other cells saved meanwhile."""


class Pass:
    """One execution of a run whose steps are plain cells.

    ``resumes`` says whether the last pass had not finished, ``finished`` which execution was
    the last that did. ``failed`` is the error of a commit that could not be made, or None.
    """

    def __init__(
        self,
        place: str,
        name: str,
        *,
        new: bool = False,
        wait: float = stores.LOCK_WAIT_SECONDS,
    ) -> None:
        """Begin it.

        Args:
            place: The store's path.
            name: The run's name.
            new: A run that is there is left as it is, and a new one begins.
            wait: How many seconds to wait for a store that another process holds.

        Raises:
            StoreError: The store can't be opened or written.
        """
        self.name = name
        self.place = place
        self.failed: DurableError | None = None
        self.restored: set[tuple[bytes, bytes]] = set()
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._number = 0
        self._left = Left()
        self._written: dict[str, bytes] = {}
        folder = Path(place).parent
        self._base = str(folder.parent if folder.name == ".nbdurable" else folder)
        self._wait = wait
        self._due = False
        found = acquire(place, wait)
        try:
            if new:
                stores.restart(found.store, name, time.time())
            self._opened: Opened = stores.begin_execution(found.store, name, now=time.time())
            self._store, self._number = found.store, self._opened.index.next_number
            self._calls = set(stores.calls_of(found.store, self.run))
            self.rules = FileRules(found.store.path)
            for part, *when in stores.parts_since(found.store, self.run, WROTE, self.finished):
                self._left.note(self._placed(part), *when)
        finally:
            release(place, found)

    @property
    def run(self) -> str:
        """The run's id."""
        return self._opened.run

    @property
    def execution(self) -> int:
        """The execution's number."""
        return self._opened.execution

    @property
    def finished(self) -> int:
        """The last execution that came to its end, or 0."""
        return self._opened.finished

    @property
    def fresh(self) -> bool:
        """Whether nothing had been saved of the run before."""
        return self._opened.previous is None

    @property
    def resumes(self) -> bool:
        """Whether the last pass had not finished."""
        return self._opened.previous not in {None, RunStatus.FINISHED}

    @contextlib.contextmanager
    def open(self) -> Iterator[Store]:
        """Hold the store open, and be up to date with what others have done to the run.

        Raises:
            StoreError: It can't be opened.
            UntrustedCheckpointError: The run is not as it was committed last.
        """
        found = self._acquired()
        try:
            yield found.store
        finally:
            release(self.place, found)

    def _acquired(self) -> Open:
        found = acquire(self.place, self._wait)
        try:
            with self._lock:
                if found.store is not self._store or not found.store.heads.knows(self.run):
                    found.store.heads.verify(self.run, self.name)
                    last = stores.last_number(found.store, self.run)
                    self._number = max(self._number, last + 1)
                    self._calls |= set(stores.calls_of(found.store, self.run))
                    self._store = found.store
        except BaseException:  # an interrupt, too, lets go of it
            release(self.place, found)
            raise
        return found

    # --- what is there ------------------------------------------------------------

    def found(self, store: Store, code: bytes) -> list[Found]:
        """Return the records of a cell's text, the newest first; what isn't signed is left out."""
        found: list[Found] = []
        call = call_of(self.run, code)
        if call not in self._calls:
            return found
        for one in stores.outcomes_of_call(store, self.run, call):
            parts = stores.evidence_of(store, one.file_evidence)
            if one.kind is Kind.VALUE and parts is not None:
                found.append(Found(one, parts))
        return found

    def changed_files(self, found: Found) -> list[Part]:
        """Return the files of a record that are not as a plain pass would find them here.

        That is: as the cells of this pass left them; where none did, as they are, or as cells
        of earlier passes left them that had not finished, for those come later in the notebook.
        """
        gone = []
        for part in map(self._placed, found.of_kind(*FILE_KINDS)):
            left = self._written.get(part.name)
            if left is not None and part.kind != WROTE and not same_content(left, part.state):
                gone.append(part)
                continue
            there = part if left is None or part.kind == WROTE else part._replace(state=left)
            gone += changed([there], self._left)
        return gone

    def kept(self, store: Store, found: Found) -> Kept:
        """Decode a record.

        Raises:
            UntrustedCheckpointError: It isn't signed by this user's key.
            DecodeError: It can't be restored.
            StoreError: An object file can't be read.
        """
        self._opened.index.verify(found.checkpoint)
        one = found.checkpoint
        return kept_of(decode(one.payload, one.pieces, store.objects))

    def portable(self, parts: Iterable[Part], recorder: Recorder) -> list[Part]:
        """Return parts of files named as they are found wherever the notebook's folder is moved."""
        base = os.path.join(self._base, "")  # noqa: PTH118 - texts of a store
        found = []
        for part in parts:
            met = recorder.files.get(part.name)
            path = os.path.normpath(part.name if met is None else met.path)
            inside = path.startswith(base)
            found.append(part._replace(name=f"./{path.removeprefix(base)}" if inside else path))
        return found

    def _placed(self, part: Part) -> Part:
        """Return a part with the path of its file here."""
        if not part.name.startswith("./"):
            return part
        return part._replace(name=os.path.join(self._base, part.name[2:]))  # noqa: PTH118

    # --- what is saved ------------------------------------------------------------

    def save(self, store: Store, ran: Ran, *, wait: bool) -> None:
        """Save what a cell did, or why that can't be saved.

        Args:
            store: The open store.
            ran: What it did.
            wait: Whether to wait for the commit, or leave it to the journal's thread.

        Raises:
            EncodeError: The value can't be pickled; nothing is saved.
            StoreError: It could not be written.
        """
        payload = None if ran.kept is None else encode(ran.kept.laid_out(), store.objects)
        entry = _Ended(self, ran, payload, acquire(self.place, self._wait))
        soon = not wait and ran.seconds >= _WORTH_A_COMMIT
        store.journal.enqueue(entry, kick=soon)
        if not wait and not soon:
            self._commit_later(store)
        if wait:
            store.journal.flush()
            if self.failed is not None:
                raise self.failed

    def _commit_later(self, store: Store) -> None:
        """Have what quick cells saved committed together: one commit each would slow them down."""
        with self._lock:
            if self._due:
                return
            self._due = True

        def commit() -> None:
            self._due = False
            store.journal.kick()

        clock().call_later(_TOGETHER_SECONDS, commit)

    def end(self, status: RunStatus, *, error: str = "") -> None:
        """Write how the pass ended."""
        with self.open() as store:
            row = ExecutionEndRow(
                self.execution,
                status.value,
                time.time(),
                error,
                listed=b"",
                reused=stores.pack_used(tuple(self.restored), ()),
                told="",
            )
            store.commit(lambda batch: batch.add(row))

    def met(self, parts: Iterable[Part]) -> None:
        """Take note of the files that a cell of this pass wrote, now or when it was saved."""
        for part in parts:
            if part.kind == WROTE:
                self._written[self._placed(part).name] = part.state

    def written(self, batch: Batch, store: Store, ran: Ran, payload: Payload | None) -> None:
        """Add what a cell did to a transaction."""
        call = call_of(self.run, ran.code)
        if payload is None:
            # One version, so that the last attempt is the one that is told.
            version = digest_of(ran.code, b"not saved")
            row = AttemptEndRow(
                call,
                version,
                attempt=self.execution,
                execution=self.execution,
                name=CELL,
                label=printable(ran.label),
                started=ran.started,
                seconds=ran.seconds,
                ending=NOT_SAVED,
                error=printable(ran.unsaved),
                concluded=False,
            )
            batch.add(row)
            return
        with self._lock:
            number, self._number = self._number, self._number + 1
            self._calls.add(call)
        version = digest_of(ran.code, b"%d %d" % (self.execution, number))
        names = [one for one in ran.parts if one.kind == NAME]
        unsigned = Checkpoint(
            call=call,
            version=version,
            code=ran.code,
            namespace=self.run.encode("ascii"),
            number=number,
            cause=0,
            execution=self.execution,
            kind=Kind.VALUE,
            name=CELL,
            label=printable(ran.label),
            arguments=printable(";".join(f"{one.name}={one.state.hex()}" for one in names)),
            attempt=1,
            started=ran.started,
            seconds=ran.seconds,
            payload=payload.data,
            pieces=payload.pieces,
            output=output.dumps(ran.messages),
            base=b"",
            code_evidence=b"",
            file_evidence=stores.add_evidence(batch, set(ran.parts)),
            signature=b"",
        )
        stores.add_outcome(batch, store, unsigned, ran.why)


class _Ended:
    """A cell that has ended, as an entry of the journal; it holds the store open until then."""

    def __init__(self, one: Pass, ran: Ran, payload: Payload | None, held: Open) -> None:
        self._pass = one
        self._ran = ran
        self._payload = payload
        self._held = held

    def write(self, batch: Batch) -> None:
        """Add it."""
        self._pass.written(batch, self._held.store, self._ran, self._payload)

    def committed(self) -> None:
        """Let go of the store."""
        release(self._pass.place, self._held)

    def failed(self, error: DurableError) -> None:
        """Keep the error for who asks, and let go of the store."""
        self._pass.failed = error
        release(self._pass.place, self._held)
