"""Records are data: frozen, without users' objects, equal by their fields."""

import dataclasses
import typing

import pytest

from nbdurable import events, records
from nbdurable.events import RunFinished
from nbdurable.records import Kind, RetryPolicy, RunStatus, Why

CLASSES = [
    value
    for value in {**vars(records), **vars(events)}.values()
    if isinstance(value, type) and dataclasses.is_dataclass(value)
]
PLAIN = {
    "bytes", "str", "int", "float", "bool", "int | None", "float | None", "Kind", "Why",
    "RunStatus", "frozenset[str]", "tuple[int, ...]", "tuple[str, ...]", "tuple[Identity, ...]",
    "tuple[tuple[bytes, bytes], ...]", "tuple[tuple[bytes, bytes, bytes], ...]",
}  # fmt: skip


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_a_record_is_frozen_data(kind):
    """A record can't be changed, has no room for more, and says what it is.

    Events are not frozen: that would take three times as long to make, three a step.
    """
    assert "__slots__" in vars(kind)
    assert kind.__doc__
    made = object.__new__(kind)
    if kind not in typing.get_args(events.Event):
        assert kind.__dataclass_params__.frozen
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, dataclasses.fields(kind)[0].name, 1)
    assert not hasattr(made, "__dict__")


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_a_record_holds_no_users_object(kind):
    """Fields are texts, numbers, digests and tuples of these; a policy's predicate is the one more.

    So each can be stored as columns, sent to a view, or compared in a test.
    """
    for field in dataclasses.fields(kind):
        if (kind, field.name) != (RetryPolicy, "retry_on"):
            assert field.type in PLAIN, f"{kind.__name__}.{field.name}: {field.type}"


def test_every_event_is_in_the_union():
    """What the run emits is what the view is told of: no event is left out of `Event`."""
    union = set(typing.get_args(events.Event))
    own = [
        value
        for value in vars(events).values()
        if getattr(value, "__module__", "") == events.__name__
    ]
    assert {value for value in own if dataclasses.is_dataclass(value)} == union
    assert all("at" in {field.name for field in dataclasses.fields(event)} for event in union)


def test_states_are_their_words():
    """Kinds, states and whys are stored and shown as these words."""
    assert [*Kind] == ["value", "error", "cancelled"]
    assert [*RunStatus] == ["running", "finished", "failed", "interrupted", "died"]
    assert [*Why] == [
        "new",
        "replayed",
        "code changed",
        "value changed",
        "argument changed",
        "upstream changed",
        "file changed",
        "error retried",
        "unfinished",
        "not saved",
        "redo",
        "value lost",
        "value unreadable",
    ]


def test_policy_by_types():
    """A policy of types accepts these and their subclasses; by default any Exception."""
    assert RetryPolicy().accepts(ValueError())
    assert not RetryPolicy().accepts(KeyboardInterrupt())
    policy = RetryPolicy(retry_on=(OSError, KeyError))
    assert policy.accepts(FileNotFoundError())
    assert policy.accepts(KeyError())
    assert not policy.accepts(ValueError())
    assert not RetryPolicy(retry_on=()).accepts(ValueError())


def test_policy_by_predicate():
    """A policy with a predicate asks it, whatever truth it gives."""
    policy = RetryPolicy(retry_on=lambda error: "again" in str(error) and ["yes"])
    assert policy.accepts(ValueError("try again")) is True
    assert policy.accepts(ValueError("no")) is False


def test_equal_by_fields():
    """Two events that tell the same are equal."""
    assert RunFinished(RunStatus.FAILED, 1.0) == RunFinished(RunStatus.FAILED, 1.0, ())
    assert RunFinished(RunStatus.FAILED, 1.0) != RunFinished(RunStatus.FINISHED, 1.0)
