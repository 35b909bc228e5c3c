"""A program run, killed, resumed and replayed, and all of it compared with the oracle.

Checked after each execution, whether it was killed or not:

- what the process saw before it ended is what the store alone leads to: nothing was
  delivered that was not committed;
- the store holds the outcomes of the first events and of no others, in their order;
  decisions are in the transaction of what closed them; what is to come before comes
  before;
- no body ran whose outcome was saved, and no loser of a decided select that nobody
  asked for; what had to run did;
- `nbdurable.store.check` finds nothing.

And where it ended by itself: results, errors, winners and output are the oracle's.
"""

import itertools
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from nbdurable.codec.outcomes import decode_error
from nbdurable.codec.values import decode
from nbdurable.store import Store, check
from nbdurable.store.index import unpack
from programs import oracle
from programs.oracle import Memory
from programs.syntax import CELL, text_of, words

GROWS = {"race", "cancel"}
"""Operations whose outcomes come at once: with these a schedule must be calm."""


ENGINE = Path(__file__).with_name("engine.py")


class Wrong(AssertionError):
    """The engine did something else than the oracle."""


@dataclass
class Found:
    """What a store holds, by identity."""

    executions: list = field(default_factory=list)
    outcomes: dict = field(default_factory=dict)
    choices: dict = field(default_factory=dict)
    seen: set = field(default_factory=set)
    stumbles: Counter = field(default_factory=Counter)
    taken: Counter = field(default_factory=Counter)
    armed: dict = field(default_factory=dict)
    problems: list = field(default_factory=list)


@dataclass
class Verdict:
    """How a case went, for statistics."""

    executions: int = 0
    killed: int = 0
    events: int = 0
    equal: bool = False


class Trial:
    """One case on one store."""

    def __init__(self, case, zygotes, folder, *, mutant="", patience=20):
        self.case = case
        self.schedule = case.schedule
        if GROWS & words(case.program):
            self.schedule = replace(self.schedule, calm=True)
        self.mutant = mutant
        self._patience = patience
        self._zygotes = itertools.cycle(zygotes)
        self._folder = folder
        self._store = folder / "store.duckdb"
        self._log = folder / "log"
        self._log.touch()
        self._read = 0
        self._identities = {}
        self._ghosts = set()
        self._memory = Memory()
        self._executions = 0
        self._begun = 0
        self._unsure = False  # whether something that may have been written was saved
        self._exact = self.schedule.lazy
        self._story = []

    def foreseen(self):
        """Return what must happen where nothing is killed."""
        return self._play(Memory())

    def run(self):
        """Run the whole story and give how it went.

        Raises:
            Wrong: The engine did something else than the oracle.
        """
        verdict = Verdict()
        base = self.foreseen()
        verdict.events = len(base.events)
        last = None
        for kill in (*self.case.kills, None, None):
            last, killed = self._execute(kill)
            verdict.executions += 1
            verdict.killed += killed
        verdict.equal = self._exact and base.ended == "finished"
        if verdict.equal and _seen(last) != _seen(base):
            # Not a defect of the engine: it did as the oracle said.
            raise AssertionError(f"the oracle contradicts itself: {self._told()}")
        return verdict

    def _play(self, memory):
        return oracle.play(
            self.case.program, memory, self.schedule, asynchronous=self.case.asynchronous
        )

    def _execute(self, kill):
        play = self._play(self._memory.copy())
        self._exact = self._exact and not (play.rearmed or play.redone or play.unsure)
        moment = None
        if kill is not None:
            event = kill.twentieths * (len(play.events) + 1) // 20 - 1
            moment = {"moment": kill.moment, "event": event, "commit": kill.commit}
        self._unsure = self._unsure or play.unsure
        told = (
            "run to its end"
            if kill is None
            else "killed {moment} commit {commit} from event {event}"
        )
        self._story.append(told.format(**moment or {}))
        code, report = self._child(play, moment)
        lines = self._lines()
        self._executions += 1
        if code not in {0, -9}:
            stuck = [line[1] for line in lines if line[0] == "stuck"]
            self._wrong(f"the process ended with {code}: {'; '.join(stuck)}", lines, report, play)
        self._name(play, lines)
        found = self._find()
        try:
            self._compare(play, found, lines, killed=code == -9)
            if code == 0:
                self._compare_end(play, lines, report)
        except Wrong as wrong:
            self._wrong(str(wrong), lines, report, play)
        self._memory.time += kill.pause if kill is not None else 0
        return play, code == -9

    def _child(self, play, kill):
        report = self._folder / f"report{self._executions}.json"
        code = next(self._zygotes).run(
            {
                "program": self.case.program,
                "asynchronous": self.case.asynchronous,
                "time": self._memory.time,
                "events": [
                    {**vars(event), "gates": list(event.gates), "timers": list(event.timers)}
                    for event in play.events
                ],
                "store": str(self._store),
                "log": str(self._log),
                "report": str(report),
                "kill": kill,
                "live": self.schedule.live,
                "mutant": self.mutant,
                "patience": self._patience,
            }
        )
        return code, json.loads(report.read_text()) if code == 0 else None

    def _lines(self):
        lines = self._log.read_text().splitlines()[self._read :]
        self._read += len(lines)
        return [json.loads(line) for line in lines]

    # --- the store -----------------------------------------------------------------

    def _name(self, play, lines):
        """Learn which call each identity of the engine's stands for."""
        for line in lines:
            if line[0] != "made":
                continue
            identity = bytes.fromhex(line[3])
            if (line[1], line[2]) in play.keys:
                self._identities[identity] = play.keys[line[1], line[2]]
            elif line[1] in play.ghosts:
                self._ghosts.add(identity.hex())

    def _find(self):
        found = Found()
        if not self._store.exists():
            return found
        store = Store.open(self._store)
        try:
            self._fill(found, store)
        finally:
            store.close()
        return found

    def _fill(self, found, store):
        found.problems = check(store)
        found.executions = [
            (execution, status, frozenset(self._key(call) for call, _ in unpack(listed or b"")))
            for execution, status, listed in store.rows(
                "SELECT id, status, listed FROM nbdurable.execution_log "
                "LEFT JOIN nbdurable.execution_ends ON execution = id ORDER BY id"
            )
        ]
        for call, kind, number, payload in store.rows(
            "SELECT call, kind, number, payload FROM nbdurable.checkpoints"
        ):
            value = decode(payload) if kind == oracle.VALUE else decode_error(payload)
            found.outcomes[self._key(call)] = kind, number, value
        for key, winner, number, label in store.rows(
            "SELECT key, winner, number, label FROM nbdurable.decision_log"
        ):
            found.choices[self._identities.get(key, (label, number))] = self._key(winner)
        found.seen = {
            self._key(call) for (call,) in store.rows("SELECT call FROM nbdurable.seen_errors")
        }
        for call, concluded in store.rows(
            "SELECT call, concluded FROM nbdurable.attempt_ends ORDER BY execution, attempt"
        ):
            # An error that was taken out begins the count anew.
            found.stumbles[self._key(call)] *= not concluded
            found.stumbles[self._key(call)] += not concluded
            found.taken[self._key(call)] += concluded
        for call, started in store.rows(
            "SELECT call, started FROM nbdurable.starts ORDER BY execution, attempt"
        ):
            found.armed[self._key(call)] = started

    def _key(self, identity):
        return self._identities.get(identity, identity.hex())

    # --- comparing -------------------------------------------------------------------

    def _compare(self, play, found, lines, *, killed):
        _demand(not found.problems, f"the store: {found.problems}")
        before = self._memory
        if len(found.executions) == self._begun:
            _demand(killed, "an execution left no trace")
            _demand(not lines, f"something happened before the execution had begun: {lines}")
            return
        self._begun += 1
        self._memory = before.copy()
        self._memory.begin()
        held = _Held(self._memory, found, play.undone)
        epoch = self._committed(play, held)
        _demand(killed or epoch == len(play.events), f"only {epoch} events are in the store")
        self._adopt(play, held, epoch, killed=killed)
        held.all_is_known(self._memory, self._ghosts)
        self._memory.time = max([before.time, *(event.time for event in play.events[:epoch])])
        self._compare_bodies(play, lines, epoch, killed=killed)
        if killed:
            self._compare_seen(play, lines, epoch)

    def _committed(self, play, held):
        """Return how many events are in the store: the first so many, and no others."""
        facts = {}
        for fact in play.facts:
            if fact.with_event:
                facts.setdefault(fact.epoch, fact)
        there = [held.has(facts[epoch]) for epoch in sorted(facts)]
        count = sum(there)
        _demand(all(there[:count]), f"outcomes out of order: {there}")
        numbers = [held.number(facts[epoch]) for epoch in sorted(facts)[:count]]
        numbers = [number for number in numbers if number]
        _demand(numbers == sorted(numbers), f"numbers out of order: {numbers}")
        return count

    def _adopt(self, play, held, epoch, *, killed):
        """Take over what was saved of what should or may have been."""
        ended = {
            fact.key for fact in play.facts if fact.what == "outcome" and fact.epoch <= epoch + 1
        }
        batches = {}
        for fact in play.facts:
            batches.setdefault(fact.batch, []).append(fact)
        for facts in batches.values():
            must, may = self._duty(facts[0], epoch, killed=killed)
            there = [held.has(fact) for fact in facts]
            if self.schedule.calm:
                _demand(all(there) or not any(there), f"saved apart: {facts}: {there}")
            for fact, saved in zip(facts, there, strict=True):
                main = fact.what in {"outcome", "stumble"} and fact.with_event
                needed = must and (self.schedule.calm or main or not killed)
                # The start of what ends before it is written is not written.
                needed = needed and not (fact.what == "armed" and fact.key in ended)
                may = may or (fact.what == "armed" and held.knew(fact))
                _demand(saved or not needed, f"not saved: {fact}")
                _demand(may or must or not saved, f"saved too early: {fact}")
                if saved:
                    self._memory.add(fact)

    def _duty(self, fact, epoch, *, killed):
        """Tell whether a fact must, and whether it may, be in the store."""
        if fact.ghost:
            return False, fact.epoch <= epoch
        if not killed:
            return True, True
        if fact.with_event:
            return fact.epoch <= epoch, fact.epoch <= epoch
        return fact.epoch < epoch, fact.epoch <= epoch

    def _compare_bodies(self, play, lines, epoch, *, killed):
        """No body ran again whose outcome was saved; no other than had to."""
        ran = Counter(line[1] for line in lines if line[0] == "body")
        may = Counter(node for at, node, _ in play.bodies if at <= epoch)
        must = Counter(
            node
            for at, node, ghost in play.bodies
            if not ghost and (not killed or (self.schedule.calm and at < epoch))
        )
        _demand(ran <= may, f"bodies that must not run: {sorted((ran - may).elements())}")
        _demand(must <= ran, f"bodies that did not run: {sorted((must - ran).elements())}")

    def _compare_seen(self, play, lines, epoch):
        """What was seen is what the store leads to."""
        may = _notes(note for note in play.notes if note[0] <= epoch)
        for fiber, seen in _lines_by_fiber(lines).items():
            if fiber not in play.halted:
                known = may.get(fiber, [])
                _demand(seen == known[: len(seen)], f"fiber {fiber} saw {seen} instead of {known}")

    def _compare_end(self, play, lines, report):
        _demand(report["events"] == len(play.events), f"ended after {report['events']} events")
        _demand(report["error"] == play.error, f"error {report['error']!r}, not {play.error!r}")
        must = _notes(note for note in play.notes if not note[3])
        may = _notes(play.notes)
        found = _lines_by_fiber(lines)
        for fiber in {*must, *found} - play.halted:
            seen, known = found.get(fiber, []), may.get(fiber, [])
            least = len(must.get(fiber, []))
            _demand(
                seen == known[: max(least, len(seen))], f"fiber {fiber} saw {seen}, not {known}"
            )
        if play.ended == "finished" and not self._unsure and not play.early:
            output = report["stdout"]
            _demand(output == play.output, f"output {output!r}, not {play.output!r}")

    # --- telling -----------------------------------------------------------------------

    def _told(self):
        program = text_of(self.case.program, asynchronous=self.case.asynchronous)
        return f"{self._story}\n{self.schedule}\n{program}"

    def _wrong(self, what, lines, report, play=None):
        events = [event.timer or event.node for event in play.events] if play else ""
        trace = (report or {}).get("traceback", "")
        raise Wrong(f"{what}\n{self._told()}\nevents {events}\nlog {lines}\n{trace}")


class _Held:
    """Whether facts are in the store."""

    def __init__(self, memory, found, undone):
        self._before = memory.copy()
        self._found = found
        self._undone = undone

    def has(self, fact):
        """Tell whether a fact is there, or was until what has undone it."""
        undone = self._undone.get(id(fact))
        return self._is_there(fact) or (undone is not None and self.has(undone))

    def _is_there(self, fact):
        found, key = self._found, fact.key
        if fact.what == "outcome":
            known, taken = found.outcomes.get(key), found.taken[key] - fact.value.taken
            return taken == 0 and known is not None and known[0] == fact.value.kind
        if fact.what == "choice":
            by, taken = fact.value.by
            there = key in found.choices and found.taken[by] == taken
            return there and found.choices[key] == (fact.value.winner or found.choices[key])
        if fact.what == "seen":
            return key in found.seen and found.taken[key] == fact.value
        if fact.what == "stumble":
            if fact.value.concludes:
                return found.taken[key] > fact.value.taken
            return found.taken[key] == fact.value.taken and found.stumbles[key] >= fact.value.count
        if fact.what == "gone":
            return all(found.taken[one] >= taken for one, taken in fact.value.items())
        if fact.what == "armed":
            return found.armed.get(key) == fact.value
        return found.executions[-1][1:] == fact.value

    def knew(self, fact):
        """Tell whether a timer's start is as it was before."""
        return self._before.armed.get(fact.key) == fact.value

    def number(self, fact):
        """Return an outcome's number in the store."""
        if fact.what != "outcome" or self._found.taken[fact.key] != fact.value.taken:
            return 0
        return self._found.outcomes[fact.key][1]

    def all_is_known(self, memory, ghosts):
        """Nothing else is in the store, but what was stopped while it began may have left.

        Raises:
            Wrong: Something is.
        """
        found = self._found
        for what, there, known in (
            ("outcomes", found.outcomes, memory.outcomes),
            ("decisions", found.choices, memory.choices),
            ("seen errors", found.seen, memory.seen),
        ):
            rest = set(there) - set(known) - ghosts
            _demand(not rest, f"unknown {what} in the store: {rest}")
            _demand(set(known) <= set(there), f"{what} lost: {set(known) - set(there)}")


def _demand(holds, what):
    if not holds:
        raise Wrong(what)


def _seen(play):
    output = "" if play.unsure else play.output
    return play.trail().get(CELL), output, play.ended, play.error


def _notes(notes):
    found = {}
    for _, fiber, note, _ in notes:
        found.setdefault(fiber, []).append(note)
    return found


def _lines_by_fiber(lines):
    """Return what each fiber noted."""
    found = {}
    for line in lines:
        if line[0] == "note":
            found.setdefault(line[1], []).append(line[2])
    return found
