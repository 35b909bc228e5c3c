"""The life of a step: its phases, what moves it from one to the next, and the engine's record.

::

                         +--- await_upstream ---> RECEIVING --- all_received ---+
                         |                                                      |
    (claimed) ---> CLAIMED <----------------------------------------------------+
                    |  | ^
                    |  | +------- release ------- RESERVED <--- reserve --- CLAIMED
                    |  |
                    |  +--- defer ---> DEFERRED ---+
                    |                              |
                    +----------- begin ------------+---> STARTED
                                                            |
                 any phase before ---- take_checkpoint -----+
                 any phase before ---- take_failure --------+---> ENDED ---> DURABLE
                 STARTED ------------- end -----------------+

What was begun and has no number may have an attempt under way (`running`), wait for the
next one (`pause`) or for room in a limit, or wait for its outcome to be committed. A step that
is broken off has no outcome in this execution: it stays in the phase that it had.

Invariant: a phase only grows from CLAIMED on, but for RECEIVING and RESERVED, which end in
CLAIMED. It is changed here alone, with the run's lock held, for two threads may change the
same step's; reading it takes no lock.
"""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003 - dataclass fields are read at run time
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nbdurable.executors.clock import Pause
    from nbdurable.output.capture import Destination
    from nbdurable.records import Checkpoint, Kind, Reason
    from nbdurable.steps.attempts import Ending, Running, Work


class Phase(IntEnum):
    """How far a step or timer is; later phases are greater."""

    CLAIMED = 0
    """It has its place in program order, and may be started."""
    RECEIVING = 1
    """It waits for outcomes that it takes as arguments."""
    RESERVED = 2
    """One thread will start it, and no other may."""
    DEFERRED = 3
    """A stored decision made it a loser: it starts when it is asked for."""
    STARTED = 4
    """It was begun: nobody else may begin it."""
    ENDED = 5
    """It has its number in the commit order, in a transaction that is not committed."""
    DURABLE = 6
    """Its outcome is committed, and may be seen."""


# Constants of the module, because looking a member up in its enum takes longer.
_CLAIMED: Final = Phase.CLAIMED
_RECEIVING: Final = Phase.RECEIVING
_RESERVED: Final = Phase.RESERVED
_DEFERRED: Final = Phase.DEFERRED
_STARTED: Final = Phase.STARTED
_ENDED: Final = Phase.ENDED
_DURABLE: Final = Phase.DURABLE


class Resolvable:
    """What every handle goes through, steps and combinators: open, numbered, durable.

    ``number`` is its place in the commit order, 0 while it has none, and never changes once
    it is there. ``broken`` is the error for who waits for what will have no outcome.
    """

    __slots__ = ("broken", "durable", "ended", "number", "waiters")

    def __init__(self) -> None:
        self.number = 0
        self.ended: Kind | None = None
        self.durable = False
        self.broken: BaseException | None = None
        self.waiters: list[Callable[[], object]] | None = None

    def resolve(self, number: int, ended: Kind | None) -> None:
        """Take a number in the commit order. The run's lock is held."""
        self.number, self.ended = number, ended

    def become_durable(self) -> list[Callable[[], object]] | None:
        """Be durable; return who is to be woken, once. The run's lock is held."""
        self.durable = True
        waiters, self.waiters = self.waiters, None
        return waiters

    def break_off(self, error: BaseException) -> list[Callable[[], object]] | None:
        """Have no outcome; return who is to be woken, once. The run's lock is held."""
        self.broken = error
        waiters, self.waiters = self.waiters, None
        return waiters

    def wake(self, waiter: Callable[[], object]) -> None:
        """Call `waiter` when this is durable, or broken off. The run's lock is held."""
        if self.waiters is None:
            self.waiters = []
        self.waiters.append(waiter)


@dataclass(slots=True)
class Timer:
    """When a timer is done: ``seconds`` after it was armed, or at the time ``until``.

    ``wake_time`` is what came of that, once it is known; ``cancel`` stops the clock's timer.
    """

    seconds: float
    until: float | None
    wake_time: float | None = None
    cancel: Callable[[], None] | None = None

    def arm(self, now: float, *, rearm: bool) -> tuple[float, bool]:
        """Set the time at which it is done; return when it began, and whether that is anew."""
        if self.until is not None:
            self.wake_time = self.until
            return now, True
        if rearm or self.wake_time is None:
            self.wake_time = now + self.seconds
            return now, True
        return self.wake_time - self.seconds, False

    def began_at(self, started: float) -> None:
        """Count from when an earlier execution armed it."""
        self.wake_time = started + self.seconds

    def counts(self, cancel: Callable[[], None]) -> None:
        """Keep what stops the clock's timer."""
        self.cancel = cancel

    def stop(self) -> bool:
        """Stop the clock's timer; tell whether there was one."""
        if self.cancel is None:
            return False
        self.cancel()
        return True


class Attempts:
    """The attempts of one step in this execution, and the waits between them."""

    __slots__ = (
        "attempt_errors", "failed_attempts", "last_attempt", "pause", "ran", "reason", "running",
        "timer", "work",
    )  # fmt: skip

    def __init__(self) -> None:
        self.work: Work | None = None
        self.timer: Timer | None = None
        self.running: Running | None = None
        self.pause: Pause | None = None
        self.last_attempt = 0
        self.failed_attempts = 0
        self.attempt_errors: tuple[str, ...] = ()
        self.reason: Reason | None = None
        self.ran = False

    def prepare(self, work: Work) -> None:
        """Take what its body needs."""
        self.work = work

    def time(self, seconds: float, until: float | None) -> Timer:
        """Be a timer, and return it."""
        self.timer = timer = Timer(seconds, until)
        return timer

    def recall(self, last: int, failed: int) -> None:
        """Count on from the attempts of earlier executions."""
        self.last_attempt, self.failed_attempts = last, failed

    def runs_because(self, reason: Reason) -> None:
        """Take why it runs."""
        self.reason = reason

    @property
    def why(self) -> str:
        """Why it runs, as it is saved; empty for what did not run."""
        return "" if self.reason is None else str(self.reason)

    def run(self, running: Running) -> None:
        """Have an attempt under way: a new one, or one that an earlier execution began."""
        self.last_attempt = max(self.last_attempt, running.number)
        self.running = running
        self.ran = True

    def interrupt(self) -> None:
        """Have no attempt under way: an interrupt came before it had an ending."""
        self.running = None

    def count_failure(self) -> int:
        """Return how many attempts have failed, with one more."""
        self.failed_attempts += 1
        return self.failed_attempts

    def count_anew(self) -> None:
        """Have all retries again."""
        self.failed_attempts = 0

    def keep_failure(self, line: str) -> None:
        """Keep how an attempt failed, for a note on the last error."""
        self.attempt_errors += (line,)

    def pause_for(self, pause: Pause) -> None:
        """Wait for the next attempt."""
        self.pause = pause

    def go_on(self) -> None:
        """Wait for the next attempt no longer."""
        self.pause = None

    def halt(self) -> None:
        """Stop what still runs of it; it records nothing more."""
        if self.timer is not None:
            self.timer.stop()
        if self.pause is not None:
            self.pause.drop()  # the next attempt will not come
        running = self.running
        if running is not None and running.fence():
            running.stop()


class StepLife(Attempts):
    """The engine's record of one step or timer; what a cell holds of it is its handle.

    ``ran`` and ``replayed`` tell where its outcome came from, in this execution. ``lost``
    is set where a decision went to another branch, ``seen`` where code was given its error,
    and ``retracted`` where its outcome was taken out, to be tried again.
    """

    __slots__ = (
        "awaitable", "cancelled_by_race", "checkpoint", "delivered", "ending", "follower", "lost",
        "missing", "phase", "replayed", "retracted", "seconds", "seen", "upstream_demanded",
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.phase: Phase = _CLAIMED
        self.missing = 0
        self.upstream_demanded = False
        self.awaitable = False
        self.replayed = False
        self.checkpoint: Checkpoint | None = None
        self.cancelled_by_race: Checkpoint | None = None
        self.ending: Ending | None = None
        self.seconds = 0.0
        self.lost = False
        self.seen = False
        self.retracted = False
        self.delivered: object = None
        self.follower: Destination | None = None

    # --- before it is begun ---------------------------------------------------------

    @property
    def started(self) -> bool:
        """Whether it was begun, or has ended: nobody else may begin it."""
        return self.phase >= _STARTED

    @property
    def waits_to_start(self) -> bool:
        """Whether it waits for its arguments, or for the thread that is to start it."""
        return self.phase is _RECEIVING or self.phase is _RESERVED

    @property
    def startable(self) -> bool:
        """Whether whoever comes first may begin it."""
        return self.phase is _CLAIMED or self.phase is _DEFERRED

    def start_when_awaited(self) -> None:
        """Be the call of an async step, which starts nothing until it is awaited."""
        self.awaitable = True

    def await_upstream(self, count: int) -> None:
        """Wait for so many outcomes that it takes as arguments. The run's lock is held."""
        self.missing = count
        if self.phase is _CLAIMED:
            self.phase = _RECEIVING

    def one_received(self) -> bool:
        """Count an outcome that is there; tell whether none is missing. The run's lock is held.

        The last one counts as missing until `all_received`, so that nobody begins the step
        before its arguments are known.
        """
        if self.missing > 1:
            self.missing -= 1
            return False
        return True

    def all_received(self) -> None:
        """Have all arguments. The run's lock is held."""
        self.missing = 0
        if self.phase is _RECEIVING:
            self.phase = _CLAIMED

    def demand_upstream(self) -> bool:
        """Tell, once, whether what it takes as arguments is to be started for it."""
        if not self.waits_to_start or self.upstream_demanded:
            return False
        self.upstream_demanded = True
        return True

    def reserve(self) -> bool:
        """Keep it for one thread to start, if nobody has; tell whether. The run's lock is held."""
        if self.phase is not _CLAIMED and self.phase is not _DEFERRED:
            return False
        self.phase = _RESERVED
        return True

    def release(self) -> None:
        """Let it be begun by the thread that it was kept for. The run's lock is held."""
        if self.phase is _RESERVED:
            self.phase = _CLAIMED

    def defer(self) -> None:
        """Start only when it is asked for. The run's lock is held."""
        if self.phase is _CLAIMED:
            self.phase = _DEFERRED

    def begin(self) -> bool:
        """Be begun; tell whether this was the first time. The run's lock is held."""
        if self.phase >= _STARTED:
            return False
        self.phase = _STARTED
        return True

    # --- its end ------------------------------------------------------------------

    def lose_race(self, cancellation: Checkpoint) -> None:
        """Keep that a race of an earlier execution cancelled it. The run's lock is held."""
        self.cancelled_by_race = cancellation

    def take_lost_race(self) -> Checkpoint | None:
        """Return the cancellation of an earlier execution, once. The run's lock is held."""
        found, self.cancelled_by_race = self.cancelled_by_race, None
        return found

    def end(self, ending: Ending, seconds: float) -> None:
        """End as its last attempt did. The run's lock is held, and its handle has the number."""
        self.ending = ending
        self.seconds = seconds
        self.phase = _ENDED

    def fail_with(self, ending: Ending) -> None:
        """End as what it waited for did. The run's lock is held."""
        self.ending = ending
        self.phase = _ENDED

    def replay(self) -> None:
        """End as a checkpoint says. The run's lock is held."""
        self.replayed = True
        # A replayed error counts as seen: one that nobody had seen would have been taken out.
        self.seen = True
        self.phase = _ENDED

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep what the store has of it."""
        self.checkpoint = checkpoint

    def commit(self) -> None:
        """Be durable. The run's lock is held."""
        self.phase = _DURABLE

    def decode_as(self, ending: Ending) -> Ending:
        """Keep what was decoded of it; return what was kept first. The run's lock is held."""
        if self.ending is None:
            self.ending = ending
        return self.ending

    def let_go(self) -> None:
        """Forget what only a body under way needs: a long notebook holds many handles."""
        if self.ending is not None:
            self.ending.let_go()
        self.work = self.running = self.pause = self.timer = None

    # --- what became of its outcome -------------------------------------------------

    def lose(self) -> None:
        """Be below a branch that lost. The run's lock is held."""
        self.lost = True

    def lose_no_more(self) -> None:
        """Let the next attempt of the body that made the decision decide anew."""
        self.lost = False

    def see(self) -> None:
        """Have its error seen."""
        self.seen = True

    def unsee(self) -> None:
        """Have its error not seen: the body that was given it has let it escape."""
        self.seen = False

    def retract(self) -> None:
        """Be taken out: the next attempt of its parent makes the call again."""
        self.retracted = True

    def deliver_to(self, receiver: object) -> None:
        """Have its output shown where `receiver` shows its own."""
        self.delivered = receiver

    def follow(self, destination: Destination | None) -> None:
        """Be shown live at a destination, or no more."""
        self.follower = destination
