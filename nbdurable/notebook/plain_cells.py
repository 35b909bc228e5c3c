"""A plain cell on its way through the shell: looked at, restored or run, and saved.

Invariant: a cell that runs is run by the shell's own code, as if nothing were there: its values,
output, errors and awaits are those of a plain cell. Whatever fails here makes the cell run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbdurable import evidence
from nbdurable.errors import CodecError, DurableError, StoreError
from nbdurable.fingerprint import Fingerprinter
from nbdurable.labels import printable
from nbdurable.output import capture as output
from nbdurable.plain import ambient, cell, policy, watch
from nbdurable.plain.cell_text import cell_text
from nbdurable.plain.kept import NotKept
from nbdurable.plain.record import RESULT, Ran
from nbdurable.records import Why

from .recording import Recording, flush_figures, settled, show_again

if TYPE_CHECKING:
    import ast
    from collections.abc import Awaitable, Callable, Sequence

    from IPython.core.interactiveshell import InteractiveShell

    from nbdurable.plain.cell import Before
    from nbdurable.plain.cell_text import CellText
    from nbdurable.plain.passes import Pass
    from nbdurable.plain.record import Found
    from nbdurable.store import Store


class Request:
    """One cell that the shell is about to run.

    Args:
        nodes: Its statements.
        interactivity: Which of them are shown, as the shell has it.
        quiet: Whether a semicolon at its end keeps its last value from being shown.
        run: The shell's own way to run statements; returns whether they raised.
    """

    def __init__(
        self,
        nodes: list[ast.stmt],
        interactivity: str,
        *,
        quiet: bool,
        run: Callable[[list[ast.stmt], str], Awaitable[bool | None]],
    ) -> None:
        self.nodes = nodes
        self.interactivity = interactivity
        self.quiet = quiet
        self._run = run

    async def run(self) -> bool:
        """Run the cell; tell whether it raised."""
        return bool(await self._run(self.nodes, self.interactivity))

    async def run_some(self, nodes: Sequence[ast.stmt]) -> bool:
        """Run some statements, none of them shown; tell whether one raised."""
        return bool(await self._run(list(nodes), "none")) if nodes else False


@dataclass(slots=True)
class Outcome:
    """What became of a cell: whether it raised or was restored, what it took when it ran.

    ``why`` says why it ran, ``unsaved`` why nothing of it was saved; ``defines`` whether all of
    it is executed in each pass. ``differs`` are, in a dry pass, the names whose values are not
    those of the record; None where no record would have been restored.
    """

    raised: bool = False
    restored: bool = False
    seconds: float = 0.0
    why: str = ""
    unsaved: str = ""
    defines: bool = False
    differs: tuple[str, ...] | None = None


class _ChangedError(Exception):
    """The code behind a cell's imports is not what it was when the cell was saved."""


class PlainCells:
    """Handles cells one by one, in one pass."""

    def __init__(
        self,
        shell: InteractiveShell,
        one: Pass,
        *,
        always: bool = False,
        least: float = 0.0,
        dry: bool = False,
    ) -> None:
        """Begin.

        Args:
            shell: The running shell.
            one: The pass.
            always: Whether every cell is saved that can be, whatever it takes.
            least: The seconds that a cell must take to be saved.
            dry: Whether cells run although they could be restored, and are compared.
        """
        self.one = one
        self._shell = shell
        self._always = always
        self._least = least
        self._dry = dry
        self._prints = Fingerprinter()
        self._live = watch.live_threads()
        evidence.install()

    async def handle(self, request: Request) -> Outcome:
        """Restore a cell, or run it and save what it did."""
        text = cell_text(request.nodes, quiet=request.quiet)
        if text.only_defines:
            return Outcome(raised=await request.run(), defines=True)
        if text.unkept:
            return await self._run_unkept(request, text, text.unkept)
        try:
            before = cell.look(text, self._shell.user_ns, self._prints)
        except Exception as error:  # noqa: BLE001 - whatever a value does when it is looked at
            return await self._run_unkept(request, text, f"it can't be looked at: {_told(error)}")
        if before.unkept:
            return await self._run_unkept(request, text, before.unkept)
        why, found = self._held(before)
        if found is not None and not self._dry:
            outcome = await self._restored(request, before, found)
            if isinstance(outcome, Outcome):
                return outcome
            why = outcome
        outcome = await self._run(request, before, why)
        if found is not None and self._dry:
            outcome.differs = self._compared(found)
        return outcome

    def _held(self, before: Before) -> tuple[str, Found | None]:
        """Return why a cell has to run, and the record that holds, if one does."""
        try:
            with self.one.open() as store:
                found = self.one.found(store, before.text.code)
                reasons = []
                for record in found:
                    reason = cell.unheld(before, record, self.one)
                    if not reason:
                        return "", record
                    reasons.append(reason)
        except (StoreError, CodecError) as error:
            return f"what is saved can't be read: {error}", None
        return (reasons[0] if reasons else str(Why.NEW)), None

    # --- restored -----------------------------------------------------------------

    async def _restored(self, request: Request, before: Before, found: Found) -> Outcome | str:
        """Restore a cell; return why that can't be, if it can't: then nothing has changed."""
        namespace = self._shell.user_ns
        try:
            with self.one.open() as store:
                saved = self.one.kept(store, found)
                ambient.restore(ambient.Changes(saved.changes))
                with Recording(self._shell, mute=True):
                    raised = await request.run_some(before.text.definitions.always)
                if raised:
                    return Outcome(raised=True, restored=True)
                if cell.code_loaded(before.text, namespace, self._prints) != saved.code:
                    raise _ChangedError  # noqa: TRY301 - what was set is set back below
                values = cell.decoded(saved, namespace)
        except Exception as error:  # noqa: BLE001 - whatever restoring a value does
            ambient.restore(ambient.changed(ambient.seen(), before.around))
            if isinstance(error, _ChangedError):
                return "the code that it uses changed"
            return f"what is saved of it can't be restored: {_told(error)}"
        self._replace_results(cell.bind(before.text, saved, values, namespace))
        show_again(self._shell, output.loads(found.checkpoint.output), values.get(RESULT))
        one = found.checkpoint
        self.one.restored.add((one.call, one.version))
        self.one.met(found.parts)
        return Outcome(restored=True, seconds=one.seconds)

    def _replace_results(self, pairs: list[tuple[object, object]]) -> None:
        """Let the results that the shell keeps be the objects that the names stand for now."""
        if not pairs:
            return
        instead = {id(old): new for old, new in pairs}
        for space in (self._shell.user_ns["_oh"], self._shell.user_ns):
            for name, value in list(space.items()):
                if id(value) in instead and (isinstance(name, int) or name.startswith("_")):
                    space[name] = instead[id(value)]
        hook: Any = self._shell.displayhook
        for name in ("_", "__", "___"):
            if id(getattr(hook, name, None)) in instead:
                setattr(hook, name, instead[id(getattr(hook, name))])

    # --- run ----------------------------------------------------------------------

    async def _run_unkept(self, request: Request, text: CellText, unkept: str) -> Outcome:
        started, clock = time.time(), time.perf_counter()
        raised = await request.run()
        seconds = time.perf_counter() - clock
        if not raised:
            self._save(Ran(text.label, text.code, started, seconds, "", unsaved=unkept))
        return Outcome(raised=raised, seconds=seconds, unsaved=unkept)

    async def _run(self, request: Request, before: Before, why: str) -> Outcome:
        recorder = evidence.Recorder()
        recorder.name(watch.file_names(before.text, before.reached, self._shell.user_ns))
        for one in watch.tested_names(before.text, before.reached, self._shell.user_ns):
            recorder.meet(one, evidence.READ)
        recording = Recording(self._shell)
        started, clock = time.time(), time.perf_counter()
        with evidence.Seeing(recorder), recording:
            raised = await request.run()
            flush_figures(self._shell)
        seconds = time.perf_counter() - clock
        outcome = Outcome(raised=raised, seconds=seconds, why=why)
        if raised:
            outcome.unsaved = "it raised"
            return outcome
        ran = Ran(before.text.label, before.text.code, started, seconds, printable(why))
        try:
            ran = self._ended(ran, before, recorder, recording)
        except Exception as error:  # noqa: BLE001 - whatever a value does when it is looked at
            ran = _unsaved(ran, f"what it did can't be saved: {_told(error)}")
        outcome.unsaved = self._save(ran)
        return outcome

    def _ended(
        self, ran: Ran, before: Before, recorder: evidence.Recorder, recording: Recording
    ) -> Ran:
        """Return what is to be saved of a cell that has ended, or why nothing is."""
        namespace = self._shell.user_ns
        files = evidence.file_parts(recorder, self.one.rules)
        files += evidence.appended_parts(recorder, self.one.rules)
        files += evidence.absent_parts(recorder, self.one.rules)
        files = self.one.portable(files, recorder)
        reason = (
            recording.fault
            or watch.unkept(recorder, self._live)
            or ("it shows several results" if len(recording.results) > 1 else "")
        )
        if not reason and not files:
            reason = watch.blind_reader(before.text, before.reached, namespace)
        if reason:
            return _unsaved(ran, reason)
        shown = bool(recording.results)
        if shown:
            namespace[RESULT] = recording.results[0]
        try:
            unseeded = evidence.unseeded() if self._always else frozenset()
            messages = settled(recording.messages)
            after = cell.changes_of(
                before, namespace, messages, clocks=not self._always, unseeded=unseeded
            )
            parts = tuple(after.parts + files)
            ran = Ran(*_head(ran), messages=messages, parts=parts)
            self.one.met(parts)
            reason = after.unkept or self._not_worth(ran, after, namespace)
            effects = messages or after.groups or after.deleted or after.changes
            if not reason and not effects and not any(one.kind == evidence.WROTE for one in files):
                reason = "it has no effect that can be seen"
            if reason:
                return _unsaved(ran, reason)
            code = cell.code_loaded(before.text, namespace, self._prints)
            kept = cell.kept_values(before, after, namespace, shown=shown, code=code)
        except NotKept as error:
            return _unsaved(ran, str(error))
        finally:
            namespace.pop(RESULT, None)
        return Ran(*_head(ran), messages=messages, parts=parts, kept=kept)

    def _not_worth(self, ran: Ran, after: cell.After, namespace: dict[str, Any]) -> str:
        if self._always:
            return ""
        names = [name for group in after.groups for name in group]
        size = policy.size_of(namespace[name] for name in names)
        return policy.not_worth(ran.seconds, size, self._least)

    def _save(self, ran: Ran) -> str:
        """Save what a cell did; return why nothing was, or nothing."""
        try:
            with self.one.open() as store:
                return self._write(store, ran)
        except DurableError as error:
            return f"the store can't be written: {error}"

    def _write(self, store: Store, ran: Ran) -> str:
        try:
            self.one.save(store, ran, wait=self._always)
        except CodecError as error:
            ran = _unsaved(ran, f"its result can't be saved: {error}")
            self.one.save(store, ran, wait=self._always)
        return ran.unsaved

    # --- dry ----------------------------------------------------------------------

    def _compared(self, found: Found) -> tuple[str, ...]:
        """Return the names whose values are not those that a record holds."""
        try:
            with self.one.open() as store:
                saved = self.one.kept(store, found)
        except DurableError:
            return ()
        return cell.differing(saved, self._shell.user_ns)


def _head(ran: Ran) -> tuple[str, bytes, float, float, str]:
    return ran.label, ran.code, ran.started, ran.seconds, ran.why


def _unsaved(ran: Ran, reason: str) -> Ran:
    return Ran(*_head(ran), parts=ran.parts, unsaved=reason)


def _told(error: BaseException) -> str:
    return printable(f"{type(error).__name__}: {error}")
