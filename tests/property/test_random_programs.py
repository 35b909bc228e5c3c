"""Random programs against a plain-Python oracle, killed at random commits and resumed.

Equal results, equal winners, equal output, no completed body run again: see
`programs.trial` for all that is compared. 120 programs by default; more with ::

    NBDURABLE_PROGRAMS=2000 python -m pytest tests/property

(0.5 to 0.9 s each). The programs are the same ones each time; NBDURABLE_PROGRAMS_SEED
draws others. A failing program is reduced and shown as Python, with its schedule, its
kills, and what each process saw.
"""

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from programs import drawing, oracle
from programs.syntax import words
from programs.trial import Trial

PROGRAMS = int(os.environ.get("NBDURABLE_PROGRAMS", "120"))
SEED = int(os.environ.get("NBDURABLE_PROGRAMS_SEED", "0"))

CALM = settings(
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
    print_blob=False,
    report_multiple_bugs=False,
)

# What must come up among 120 programs, or the drawing has gone wrong.
EVERYTHING = {
    "after", "ask index", "ask outcome", "ask result", "ask result timeout", "ask winner", "call",
    "cancel", "each", "gather", "gather exceptions", "gather keyed", "go", "if", "map", "print",
    "race", "race success", "select", "select success", "sleep", "step asynchronous", "step body",
    "step fails", "step local", "step outage", "step prints", "step redirects", "step retries",
    "step stumbles", "step takes", "try", "wraps",
}  # fmt: skip


@pytest.mark.timeout(900 + 6 * PROGRAMS)
def test_random_programs(theatre, folders):
    """Killed anywhere and resumed, a program does what the oracle says, and nothing twice."""
    counts, come_up = Counter(), set()

    @seed(SEED)
    @settings(CALM, max_examples=PROGRAMS)
    @given(drawing.cases())
    def run(case):
        trial = Trial(case, theatre, folders())
        verdict = trial.run()
        come_up.update(words(case.program))
        counts.update(
            cases=1,
            executions=verdict.executions,
            killed=verdict.killed,
            events=verdict.events,
            equal=verdict.equal,
        )

    run()
    print(f"{dict(counts)}")
    if PROGRAMS >= 120:
        assert not EVERYTHING - come_up
        assert counts["killed"] >= PROGRAMS / 5, "too few processes were killed"
        assert counts["equal"] >= PROGRAMS / 10, "too few cases that any order must leave equal"


def test_the_oracle_agrees_with_itself():
    """A process that dies after any event leaves what leads to the same end.

    Where no timer was under way, no error is tried again and no cancelled body had
    written something, and losers end only when they are asked for.
    """
    compared = Counter()

    @seed(SEED)
    @settings(CALM, max_examples=300)
    @given(drawing.cases())
    def run(case):
        whole = _play(case, oracle.Memory())
        for epoch in range(len(whole.events) + 1):
            resumed = _play(case, _died(whole, epoch))
            changed = resumed.redone or resumed.rearmed or resumed.unsure or whole.unsure
            if case.schedule.lazy and not changed and whole.ended == "finished":
                compared["resumed"] += 1
                assert resumed.trail().get(0) == whole.trail().get(0)
                assert (resumed.output, resumed.ended) == (whole.output, whole.ended)

    run()
    assert compared["resumed"] > 300


def _play(case, memory):
    return oracle.play(case.program, memory, case.schedule, asynchronous=case.asynchronous)


def _died(play, epoch):
    """Return what a process leaves that dies when all of `epoch` has been saved."""
    memory = oracle.Memory()
    memory.begin()
    for fact in play.facts:
        if fact.epoch <= epoch and not fact.ghost and fact.what != "end":
            memory.add(fact)
    memory.time = max([memory.time, *(event.time for event in play.events[:epoch])])
    return memory
