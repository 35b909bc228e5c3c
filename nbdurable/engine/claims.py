"""Claims: what a step is asked with, digested; its place in program order; its handle.

Invariant: a call's identity is what is asked for, by whom, and its place among equal calls of
the same code, so that the next execution gives it the same one (CONTRACT section 3).
"""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any

from nbdurable.evidence import FileRules
from nbdurable.executors.limits import Limit
from nbdurable.executors.loops import running_loop
from nbdurable.handles.call_identity import call_id, digest_of_version, received_as
from nbdurable.handles.handle import StepHandle, handles_in, with_values
from nbdurable.labels import label_of, telling
from nbdurable.records import HandleKind
from nbdurable.steps.attempts import Work, is_async
from nbdurable.steps.draws import draw_again

from .pinned import Pinned
from .program_order import ProgramOrder
from .usage import Claim

if TYPE_CHECKING:
    from collections.abc import Callable

    from nbdurable.commit.acceptance import Acceptance
    from nbdurable.commit.ledger import Ledger
    from nbdurable.commit.state import State
    from nbdurable.executors.remote import Pool
    from nbdurable.fingerprint import Fingerprinter, Held
    from nbdurable.handles.handle import Handle, Order
    from nbdurable.handles.scope import Scope
    from nbdurable.steps.options import RunSettings, StepOptions

    from .contents import Contents
    from .dataflow import Dataflow
    from .replays import Replays
    from .scheduler import Scheduler
    from .usage import Usage


class Claims:
    """Makes the handles of one execution's steps and timers, in program order."""

    def __init__(
        self,
        state: State,
        ledger: Ledger,
        order: Order,
        prints: Fingerprinter,
        *,
        settings: RunSettings,
        refuse_ended: Callable[[Scope, str], None],
        acceptance: Acceptance,
        contents: Contents,
        usage: Usage,
        dataflow: Dataflow,
        replays: Replays,
        scheduler: Scheduler,
    ) -> None:
        self._state = state
        self._kept = ledger.kept
        self._order = order
        self._prints = prints
        self._settings = settings
        self._refuse_ended = refuse_ended
        self._acceptance = acceptance
        self._contents = contents
        self._usage = usage
        self._dataflow = dataflow
        self._replays = replays
        self._scheduler = scheduler
        # With pinned packages, their versions belong to a step's code.
        self._pinned = Pinned(prints.places) if settings.pin_packages else None
        self._program_order = ProgramOrder(state)
        self._rules = FileRules(state.store.path)
        self._limits: dict[StepOptions, Limit] = {}

    def claim(
        self,
        where: Scope,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: StepOptions,
        *,
        held: Held | None = None,
        limits: tuple[Limit, ...] = (),
    ) -> StepHandle[Any]:
        """Return the handle of the next call of `function`: replayed, or ready to be started.

        With ``held`` the digests of keywords that many calls share are kept in it; ``limits``
        are those of a map.
        """
        pool = self._scheduler.pool_of(options, function)
        claim = self._digested(where, function, arguments, keywords, options, held)
        upstream = tuple(handles_in(arguments, keywords))
        handle, again = self._claim_call(
            where,
            options.name,
            claim.inputs.digest,
            HandleKind.STEP,
            claim=claim,
            upstream=upstream,
        )
        if again:
            return handle  # an earlier attempt of the body that calls has made this call
        if claim.code is not None and where.parent is not None:
            self._kept.learn(handle.code, claim.code)
        reads = options.reads or self._settings.reads
        handle.take_version(self._dataflow.version(handle, reads))
        found = self._state.index.checkpoints.get(handle.identity)
        if found is None:
            # A step may have been cancelled before its version was known: then it was saved
            # under the version of zeros.
            found = self._state.index.checkpoints.get((handle.call_id, bytes(16)))
        found = found or self._acceptance.of(handle, function, claim.parts)
        if found is not None and self._replays.replay(handle, found):
            if (states := self._state.index.draws.get(handle.identity)) is not None:
                draw_again(states, (claim.inputs, claim.code))
            return handle
        work = self._work(handle, claim, (arguments, keywords), pool, held=held, limits=limits)
        handle.life.prepare(work)
        if claim.code is not None and claim.code.contents:
            self._contents.written_by(handle, claim.code)
        work.need_room(self._scheduler.room_of(handle, work))
        self._state.observers.created(handle)
        self._state.observers.say_prints(options.name, claim.code, claim.inputs)
        if handle.version is None:
            self._dataflow.await_upstream(handle)
        elif handle.upstream:
            work.take_values(*with_values(arguments, keywords))
        return handle

    def claim_timer(self, where: Scope, name: str, inputs: bytes) -> tuple[StepHandle[Any], bool]:
        """Return the handle of the next timer, and whether it was there already."""
        self._refuse_ended(where, name)
        return self._claim_call(where, name, inputs, HandleKind.TIMER)

    def _digested(  # noqa: PLR0917 - what a call is made of
        self,
        where: Scope,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: StepOptions,
        held: Held | None,
    ) -> Claim:
        """Digest what is asked for."""
        moment = self._usage.moment
        used = self._usage.used_by(function, options)
        code, digest, pins = None, b"", b""
        if options.version is None:
            code = self._prints.code(function, ignore=options.ignore, used=used)
            digest = code.digest
            if self._pinned is not None:
                pins, code = self._pinned.code(function, code)
        else:
            digest = digest_of_version(options.version)
        if options.key is not None:
            inputs = self._prints.value(options.key(*arguments, **keywords), "key")
        else:
            inputs = self._prints.arguments(
                function, arguments, keywords, ignore=options.ignore, held=held, used=used
            )
        called = self._prints.called(function, options, used)
        bases = self._contents.bases(options.name, code) if code and code.contents else ()
        claim = Claim(
            where, function, options, called, code, digest, inputs, used, moment, bases, pins
        )
        return claim._replace(code_digest=claim.coded(digest)) if bases or pins else claim

    def _work(
        self,
        handle: StepHandle[Any],
        claim: Claim,
        given: tuple[tuple[Any, ...], dict[str, Any]],
        pool: Pool | None,
        *,
        held: Held | None,
        limits: tuple[Limit, ...],
    ) -> Work:
        """Return what a step runs, and label its handle."""
        function, options, (arguments, keywords) = claim.function, claim.options, given
        parameters = self._prints.parameters(function) if arguments else ()
        shown = telling(keywords, held) if held else keywords
        handle.show_as(label_of(options.name, arguments, shown, parameters))
        return Work(
            label=handle.label_text,
            function=function,
            arguments=arguments,
            keywords=keywords,
            options=options,
            code=claim.code,
            inputs=claim.inputs,
            called=claim.called,
            use=self._usage.use_of(handle, claim),
            bases=claim.bases,
            context=contextvars.copy_context(),
            is_async=is_async(function),
            objects=self._state.store.objects,
            loop=running_loop() if claim.where.asynchronous else None,
            strict=self._settings.strict,
            rules=self._rules,
            reads=options.reads or self._settings.reads,
            limits=limits if options.limit is None else (*limits, self._limit_of(options)),
            pool=pool,
        )

    def _limit_of(self, options: StepOptions) -> Limit:
        assert options.limit is not None
        with self._state.lock:
            return self._limits.setdefault(options, Limit(options.limit))

    def _claim_call(
        self,
        where: Scope,
        name: str,
        inputs: bytes,
        kind: HandleKind,
        *,
        claim: Claim | None = None,
        upstream: tuple[Handle[Any], ...] = (),
    ) -> tuple[StepHandle[Any], bool]:
        """Return the handle of the next call, and whether it was there already."""
        code = claim.code_digest if claim is not None else b""
        with self._state.lock:
            # Ask again under the lock: the calling step may have been cancelled meanwhile.
            self._refuse_ended(where, name)
            called = claim.called if claim is not None else name
            count = self._program_order.occurrence(where, name, called, inputs)
            identity = call_id(where.namespace, called, inputs, count)
            if not self._state.index.checkpoints.knows(identity):
                former = self._acceptance.former(where.namespace, name, called, inputs, count, code)
                identity = identity if former is None or former in self._state.live else former
            if claim is not None and self._usage.knows_any:
                identity, code = self._usage.resolve(identity, claim, upstream)
            found = self._state.live.get(identity)
            if found is not None and not found.life.retracted:
                return found, True
            handle: StepHandle[Any] = StepHandle(
                self._order,
                self._state.index_of(found),
                name,
                identity,
                namespace=where.namespace,
                occurrence=count,
                kind=kind,
                parent=where.parent,
                code=code,
                received_as=received_as(where, called, inputs, identity),
                upstream=upstream,
            )
            self._state.add(handle)
            return handle, False
