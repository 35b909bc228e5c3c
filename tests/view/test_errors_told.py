"""A failure as a view is told of it: what it said and where it happened, live and on replay."""

from __future__ import annotations

import pytest

from nbdurable import step, workflow
from nbdurable.events import StepFinished, StepReplayed


@step
def parse(text):
    """Fail in a library, below a line of one's own."""
    return int(
        text  # the line that is named is the one that the call begins on
    )


def a_pass(store):
    """Run the cell once; give its events, and what its view would tell of the step."""
    events = []
    run = workflow("quotes", store=store, observers=(events.append,))
    with run:
        with pytest.raises(ValueError, match="invalid literal"):
            parse.go("one").result()
        detail = dict(fact[:2] for fact in run.control.detail(0)["facts"])
    return events, detail


def test_a_replayed_failure_says_what_and_where(tmp_path):
    """The message and the user's own line are the same on both passes."""
    first, detail = a_pass(tmp_path / "s.duckdb")
    again, later = a_pass(tmp_path / "s.duckdb")
    (failed,) = [one for one in first if type(one) is StepFinished]
    (replayed,) = [one for one in again if type(one) is StepReplayed]
    assert failed.error == "ValueError: invalid literal for int() with base 10: 'one'"
    line = parse.__wrapped__.__code__.co_firstlineno + 3
    assert failed.where == f"parse(), line {line} of test_errors_told.py"
    assert (replayed.error, replayed.where) == (failed.error, failed.where)
    for told in (detail, later):
        assert "return int(" in told["Error"]
        assert "nbdurable/" not in told["Error"]
