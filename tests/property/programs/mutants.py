"""Engines broken on purpose, each by patching it in the process that runs the program.

A mutant is called before the execution begins. Each breaks one sentence of the
contract, and nothing that a program without crashes, or without a second run, need
notice.
"""

from nbdurable.commit.entries import AttemptEnded, Settled
from nbdurable.commit.ledger import Ledger
from nbdurable.engine.claims import Claims
from nbdurable.engine.escaped import Escaped
from nbdurable.engine.run import Run
from nbdurable.engine.scheduler import Scheduler
from nbdurable.engine.timers import Timers
from nbdurable.handles.combinators import Gather, Race, Select
from nbdurable.records import Kind
from nbdurable.store import runs


def decisions_apart():
    """Decisions are written in a transaction of their own, after the outcome's."""
    write = Ledger.write_decision

    class Later:
        def __init__(self, ledger, select):
            self._ledger, self._select = ledger, select

        def write(self, batch):
            with self._ledger.lock:
                write(self._ledger, self._select, batch)

        def committed(self):
            pass

        def failed(self, error):
            pass

    def apart(ledger, select, batch):
        ledger.journal.enqueue(Later(ledger, select))

    Ledger.write_decision = apart


def list_order_wins():
    """Of the branches that have ended the first in the list wins, not the lowest number."""
    Select.notice = _notice_by(lambda select, branch: select._positions[branch.place])


def highest_number_wins():
    """Of the branches that have ended the last wins."""
    Select.notice = _notice_by(lambda select, branch: -branch.number)


def _notice_by(rank):
    def notice(select, branch):
        select._left -= 1
        select._highest = max(select._highest, branch.number)
        if select._success and branch.ended is not Kind.VALUE:
            return
        best = select._best
        if best is None or rank(select, branch) < rank(select, best):
            select._best = branch

    return notice


def delivered_before_commit():
    """A checkpoint is delivered when it is written, before it is committed."""
    write = Settled.write

    def early(settled, batch):
        write(settled, batch)
        settled._ledger.make_durable(settled._resolved)
        settled._resolved = []

    Settled.write = early


def losers_start():
    """The losers of a decided select are started on replay."""
    Scheduler.is_stored_loser = lambda scheduler, handle: False


def occurrences_ignored():
    """A second call with the same arguments is the first."""
    claim = Claims._claim_call

    def first(claims, where, name, inputs, *rest, **named):
        for called, same in tuple(where.occurrences):
            if same == inputs:
                del where.occurrences[called, same]
        return claim(claims, where, name, inputs, *rest, **named)

    Claims._claim_call = first


def errors_unseen():
    """That an error has been seen is not saved."""
    see = Run.see

    def forgetful(run, handle):
        handle.life.see()
        see(run, handle)

    Run.see = forgetful


def attempts_forgotten():
    """That an attempt failed is not saved."""
    AttemptEnded.write = lambda entry, batch: None


def first_listed_failure():
    """A gather fails with its first failure in the list, not with the lowest-numbered."""
    notice = Gather.notice

    def by_place(gather, branch):
        before = gather.chosen
        notice(gather, branch)
        if before is not None and branch.ended is not Kind.VALUE:
            gather.chosen = min(before, branch, key=gather.branches.index)

    Gather.notice = by_place


def races_cancel_nothing():
    """The losers of a race go on."""
    Race.cancels = False


def timers_begin_anew():
    """A timer that is waited for alone begins anew after a death."""
    arm = Timers.arm

    def anew(timers, handle, *, rearm):
        arm(timers, handle, rearm=True)

    Timers.arm = anew


def escaped_errors_stay_seen():
    """A body that has let a child's error escape has seen it."""
    Escaped.unsee = lambda escaped, batch, handles: None


def bodies_are_retried_alone():
    """A body that is attempted again gets the errors that it was given before."""
    Escaped.take_out_below = lambda escaped, parent: None


def losers_errors_go():
    """The error of a loser that nobody asks for is taken out at the next beginning."""
    runs._keep_lost = lambda *_: None


def failures_are_not_decided():
    """Which failure a gather has ended with is not saved."""
    decide = Ledger.decide

    def silent(ledger, combinator, batch):
        return [] if isinstance(combinator, Gather) else decide(ledger, combinator, batch)

    Ledger.decide = silent


def causes_are_not_listed():
    """Only the error that escapes from the cell is tried again, not what it was raised from."""
    found = Escaped._in

    def alone(escaped, error):
        return [one for one in found(escaped, error) if escaped._given[id(error)][1].count(one)]

    Escaped._in = lambda escaped, error: (
        alone(escaped, error) if id(error) in escaped._given else []
    )


def _some(*what):
    """Tell whether there is a fact of each kind."""
    return lambda play: set(what) <= {fact.what for fact in play.facts}


def _decided_by_an_event(play):
    return any(fact.what == "choice" and fact.with_event for fact in play.facts)


def _decided_late(play):
    return any(fact.what == "choice" and not fact.with_event for fact in play.facts)


def _has_left_losers(play):
    ended = {fact.key for fact in play.facts if fact.what == "outcome"}
    lost = [fact.value.losers for fact in play.facts if fact.what == "choice"]
    return any(not losers <= ended for losers in lost)


def _has_cancelled(play):
    return any(fact.what == "outcome" and fact.value.cause for fact in play.facts)


def _has_twins(play):
    return any(key[-1] == ("twin", 2) for key in play.keys.values() if key[0] not in KINDS)


def _has_failed_twice(play):
    failed = {fact.key for fact in play.facts if fact.what == "outcome" and fact.value.error}
    gathers = [key for key in play.keys.values() if key[:2] == ("gather", False)]
    return any(len(failed & set(key[2])) > 1 for key in gathers)


def _has_passed_on(play):
    return any(fact.what in {"outcome", "stumble"} and fact.value.unseen for fact in play.facts)


def _has_retried_children(play):
    return any(fact.what == "gone" for fact in play.facts)


def _has_unseen_losers(play):
    lost = {key for fact in play.facts if fact.what == "choice" for key in fact.value.losers}
    seen = {fact.key for fact in play.facts if fact.what == "seen"}
    failed = {fact.key for fact in play.facts if fact.what == "outcome" and fact.value.error}
    return bool(lost & failed - seen)


def _has_failed_gathers(play):
    return any(fact.what == "choice" and fact.key[0] == "gather" for fact in play.facts)


def _has_wrapped(play):
    return play.ended == "failed" and "wraps" in play.error


def _has_slept(play):
    return any(event.timer.startswith(("sleep(", "after(")) for event in play.events)


KINDS = {"gather", "select", "race", "each"}

MUTANTS = {
    decisions_apart: _decided_by_an_event,
    list_order_wins: _decided_late,
    highest_number_wins: _decided_late,
    delivered_before_commit: _some("outcome"),
    losers_start: _has_left_losers,
    occurrences_ignored: _has_twins,
    errors_unseen: _some("seen"),
    attempts_forgotten: _some("stumble"),
    first_listed_failure: _has_failed_twice,
    races_cancel_nothing: _has_cancelled,
    timers_begin_anew: _has_slept,
    escaped_errors_stay_seen: _has_passed_on,
    bodies_are_retried_alone: _has_retried_children,
    losers_errors_go: _has_unseen_losers,
    failures_are_not_decided: _has_failed_gathers,
    causes_are_not_listed: _has_wrapped,
}
"""Each with what must come up in a program, or it can't show."""
