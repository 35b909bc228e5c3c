"""Combinators on combinators: thousands deep, and with a failure that stays the same."""

from nbdurable import gather, go, race, select, step

DEEP = 3_000


def nested(combine, handle, **options):
    """Return `DEEP` combinators, each on the one before."""
    for _ in range(DEEP):
        handle = combine(handle, **options)
    return handle


def deep(probe):
    """Ask every kind for what it ended with, in all ways."""

    def fails():
        probe.effect("fails")
        raise ValueError("failed")

    def twin():
        fails()

    first = nested(select, go(len, "abc"))
    values = nested(gather, go(len, "abcd"))
    failed = nested(gather, go(fails))
    group = nested(select, go(twin), success=True)
    both = nested(lambda handle: race(gather(handle)), go(len, "ab"))
    found = [first.result(), first.index, str(first.winner.kind), len(first.label) < 400]
    value, depth = values.result(), 0
    while isinstance(value, list):
        value, depth = value[0], depth + 1
    found += [value, depth, str(failed.outcome().error), str(both.winner.kind)]
    error, depth = group.outcome().error, 0
    while isinstance(error, ExceptionGroup):
        error, depth = error.exceptions[0], depth + 1
    return [*found, str(error), depth, go(str, first).result(), repr(both)[:11]]


def test_three_thousand_deep(always_replay):
    """None of what a combinator answers, or is asked for on replay, calls itself."""
    assert always_replay(deep).value == [
        *(3, 0, "select", True),
        *(4, DEEP, "failed", "gather"),
        *("failed", DEEP, "3", "<race race("),
    ]


def late_upstream(probe):
    """Gather two failures, of which the first waits for what is computed anew on replay."""

    @step(version=probe.parameters.get("version", "1"))
    def upstream():
        probe.effect("upstream")
        return 1

    @step(version="1")
    def downstream(received):
        probe.effect("downstream")
        raise ValueError("downstream")

    @step(version="1")
    def other():
        probe.event("failed").wait(30)
        probe.effect("other")
        raise KeyError("other")

    beside = other.go()
    handle = downstream.go(upstream.go())
    both = gather(handle, beside)
    first = both.outcome().error
    probe.event("failed").set()
    again = gather(beside, handle).outcome().error
    return repr(first), repr(beside.outcome().error), repr(again)


def test_a_gathers_failure_is_stored(bench):
    """It is that of the first pass, though that step's version is known late on this one."""
    first = bench.run(late_upstream)
    assert first.value == ("ValueError('downstream')", "KeyError('other')", first.value[2])
    for version in ("2", "3"):
        later = bench.run(late_upstream, parameters={"version": version})
        assert later.value == first.value
        assert bench.check()[0] == []
    assert bench.effects() == {"upstream": 3, "downstream": 1, "other": 1}


def changed_upstream(probe):
    """Gather a failure that its upstream's new value has undone."""

    def upstream():
        return probe.parameters.get("value", 1)

    @step(version="1")
    def downstream(received):
        if received == 1:
            raise ValueError("downstream")
        return received

    @step(version="1")
    def other():
        probe.event("failed").wait(0 if probe.parameters else 30)
        raise KeyError("other")

    beside = other.go()
    source = step(upstream, version=str(probe.parameters.get("value", 1))).go()
    both = gather(downstream.go(source), beside)
    first = both.outcome().error
    probe.event("failed").set()
    return repr(first), repr(beside.outcome().error)


def test_a_changed_branch_opens_it_again(bench):
    """A failure that is none any more is not delivered; the next one is."""
    assert bench.run(changed_upstream).value == ("ValueError('downstream')", "KeyError('other')")
    changed = bench.run(changed_upstream, parameters={"value": 2})
    assert changed.value == ("KeyError('other')", "KeyError('other')")
    assert bench.check()[0] == []
