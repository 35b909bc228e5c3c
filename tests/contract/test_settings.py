"""CONTRACT section 3, Settings: what a body used of the process is told when it is another."""

import decimal
import os
import random
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from nbdurable import go, workflow
from nbdurable.api import open_stores
from nbdurable.inspection import queries as questions


@pytest.fixture
def execute(tmp_path):
    """Yield a function that runs a program, and the line that is told."""

    def run(program, **options):
        flow = workflow("w", store=tmp_path / "s.duckdb", **options)
        with flow:
            value = program()
        told = [note for note in flow.notes if note.startswith("told")]
        return SimpleNamespace(value=value, told="".join(told), notes=flow.notes)

    yield run
    open_stores.close_stores()


def draw():
    """Move Python's generator."""
    return random.random()


def draw_numpy():
    """Move NumPy's old generator."""
    return float(np.random.normal())  # noqa: NPY002 - it is about this


def divide(number):
    """Use decimal's context."""
    return str(decimal.Decimal(1) / number)


def ask():
    """Use an environment variable."""
    return os.environ.get("NBDURABLE_TEST_URL")


def test_a_seeded_generator_that_a_body_moves_is_told_on_every_pass(execute, monkeypatch):
    """On the one that ran it, too, for what comes after it sees another number on replay."""
    monkeypatch.setattr(sys.modules["__main__"], "In", ["random.seed(3)"], raising=False)
    random.seed(3)
    for _ in range(3):
        assert "moved the seeded generator of random" in execute(lambda: go(draw).result()).told


def test_one_that_nobody_seeded_is_not(execute, monkeypatch):
    """It gives another number each time anyhow."""
    monkeypatch.setattr(sys.modules["__main__"], "In", ["x = 1"], raising=False)
    assert execute(lambda: go(draw).result()).told == ""


def test_numpys_old_generator(execute, monkeypatch):
    """It knows itself whether it was seeded."""
    np.random.seed(3)  # noqa: NPY002 - likewise
    told = execute(lambda: go(draw_numpy).result()).told
    assert "draw_numpy() moved the seeded generator of numpy.random" in told
    assert execute(lambda: go(draw_numpy).result()).told == told


def test_decimals_context(execute):
    """Its precision, as it is when the cell ends."""
    assert execute(lambda: go(divide, 3).result()).told == ""
    with decimal.localcontext() as context:
        context.prec = 5
        again = execute(lambda: go(divide, 3).result())
    assert "decimal's context, which divide(3) used, has changed since" in again.told
    assert execute(lambda: go(divide, 3).result()).told == ""


def test_an_environment_variable_that_a_constant_names(execute, monkeypatch, tmp_path):
    """Its value is nowhere in the store."""
    monkeypatch.setenv("NBDURABLE_TEST_URL", "secret-one")
    assert execute(lambda: go(ask).result()).told == ""
    monkeypatch.setenv("NBDURABLE_TEST_URL", "secret-two")
    again = execute(lambda: go(ask).result())
    assert again.value == "secret-one"
    assert "the environment's NBDURABLE_TEST_URL, which ask() used, has changed" in again.told
    (row,) = questions.why("w", tmp_path / "s.duckdb")
    assert "NBDURABLE_TEST_URL, which it used" in row["told"]
    monkeypatch.delenv("NBDURABLE_TEST_URL")
    assert "has changed" in execute(lambda: go(ask).result()).told


def test_a_setting_that_was_kept_is_quiet_once_a_second_keep_has_said_so(execute, monkeypatch):
    """As for files: what --keep accepted stays told until the next pass with --keep."""
    monkeypatch.setenv("NBDURABLE_TEST_URL", "one")

    def pass_over(**options):
        report = execute(lambda: go(ask).result(), **options)
        assert report.value == "one"
        return report

    pass_over()
    monkeypatch.setenv("NBDURABLE_TEST_URL", "two")
    assert "NBDURABLE_TEST_URL" in pass_over().told
    assert "NBDURABLE_TEST_URL" in " ".join(pass_over(keep=True).notes)
    told = pass_over()
    assert told.told == ""
    assert "--keep accepted" in " ".join(told.notes)
    pass_over(keep=True)
    first, second = ([note for note in pass_over().notes if "ago" not in note] for _ in range(2))
    assert first == second
    assert "NBDURABLE_TEST_URL" not in " ".join(pass_over().notes)
    monkeypatch.setenv("NBDURABLE_TEST_URL", "three")
    assert "NBDURABLE_TEST_URL" in pass_over().told


def test_a_moved_generator_that_was_kept_is_quiet(execute, monkeypatch):
    """It is moved again by whatever pass runs the step, and told then."""
    monkeypatch.setattr(sys.modules["__main__"], "In", ["random.seed(3)"], raising=False)
    random.seed(3)
    execute(lambda: go(draw).result())
    for _ in range(2):
        execute(lambda: go(draw).result(), keep=True)
    assert "generator" not in " ".join(execute(lambda: go(draw).result()).notes)
