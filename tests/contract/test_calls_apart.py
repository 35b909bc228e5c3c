"""CONTRACT section 3: which calls are one, and which are told apart."""

import functools
import importlib
import sys

import pytest

from nbdurable import gather, go, step, workflow
from nbdurable.api import open_stores

RAN = []


def ask(model, question):
    """Answer, and note that the body ran."""
    RAN.append(model)
    return f"{model}: {question}"


def local(model):
    """Return a function of this one's scope."""

    def one():
        return ask(model, "hi")

    return one


STARTS = {
    "partials": lambda models: [go(functools.partial(ask, m), "hi") for m in models],
    "partials by name": lambda models: [
        go(functools.partial(ask, question="hi"), m) for m in models
    ],
    "lambdas": lambda models: [go(lambda m=m: ask(m, "hi")) for m in models],
    "local functions": lambda models: [go(local(m)) for m in models],
}


@pytest.mark.parametrize("kind", STARTS)
def test_what_is_inserted_or_reordered_disturbs_nothing(tmp_path, kind):
    """What a call binds or captures says which call it is, not its place."""
    ran = []
    for models in ("abc", "zabc", "cba", "b"):
        RAN.clear()
        with workflow("w", store=tmp_path / "s.duckdb"):
            found = gather(STARTS[kind](models)).result()
        open_stores.close_stores()
        assert found == [f"{m}: hi" for m in models]
        ran.append(sorted(RAN))
    assert ran == [["a", "b", "c"], ["z"], [], []]


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write modules, and load what they are now."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield write
    for name in ("apart_one", "apart_two"):
        sys.modules.pop(name, None)


FETCH = """
import test_calls_apart_ran as seen
def fetch(x):
    seen.RAN.append(x)
    return x + {}
"""


@pytest.fixture
def seen(written):
    """Return what notes the bodies that ran."""
    yield written("test_calls_apart_ran", "RAN = []\n")
    sys.modules.pop("test_calls_apart_ran", None)


def test_equal_names_of_two_modules_are_two_steps(tmp_path, written, seen):
    """In whatever order they are called."""
    one = written("apart_one", FETCH.format(1))
    two = written("apart_two", FETCH.format(2))
    for functions, wanted in (((one, two), [2, 3]), ((two, one), [3, 2])):
        with workflow("w", store=tmp_path / "s.duckdb"):
            assert [step(module.fetch)(1) for module in functions] == wanted
        open_stores.close_stores()
    assert len(seen.RAN) == 2


def test_a_function_that_moved_to_a_module_keeps_its_outcomes(tmp_path, written, seen):
    """Where its code is equal and its old name stands for it no more; a copy is another step."""
    one = written("apart_one", FETCH.format(1))
    for module in (one, written("apart_two", FETCH.format(1))):
        if module is not one:
            written("apart_one", "from apart_two import fetch\n")
        with workflow("w", store=tmp_path / "s.duckdb"):
            assert step(module.fetch)(1) == 2
        open_stores.close_stores()
    assert len(seen.RAN) == 1
    copy = written("apart_one", FETCH.format(1))
    with workflow("w", store=tmp_path / "s.duckdb"):
        assert step(copy.fetch)(5) == 6
        assert step(sys.modules["apart_two"].fetch)(5) == 6
    open_stores.close_stores()
    assert len(seen.RAN) == 3


def test_a_given_name_stands_as_given(tmp_path):
    """It is the same step, whichever function has it."""
    RAN.clear()
    for function in (ask, functools.partial(ask)):
        with workflow("w", store=tmp_path / "s.duckdb"):
            assert step(function, name="asked", version=1)("a", "hi") == "a: hi"
        open_stores.close_stores()
    assert RAN == ["a"]
