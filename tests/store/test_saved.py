"""A run's checkpoints in memory: packed, and yet each as it was committed."""

import dataclasses
import gc
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from nbdurable.records import Checkpoint, Kind
from nbdurable.store.packed import COLUMNS, Saved, checkpoint_of

CALLS = [bytes([letter]) * 16 for letter in b"abcd"]
VERSIONS = [bytes([letter]) * 16 for letter in b"xyz"]


def row_of(number, call=CALLS[0], version=VERSIONS[0], **given):
    """Return a row of a call that is in one group, as all outcomes of a call are."""
    fields = {
        "call": call, "version": version, "code": b"c" * 16, "namespace": bytes([call[0] % 2]) * 32,
        "number": number, "cause": 0, "execution": 1, "kind": "value", "name": "f",
        "label": f"f({number})", "arguments": f"number={number}", "attempt": 1,
        "started": 10.0 * number, "seconds": 0.5, "payload": b"%d" % number, "pieces": b"",
        "output": "", "base": b"", "code_evidence": b"", "file_evidence": b"",
        "signature": bytes(32), **given,
    }  # fmt: skip
    return tuple(fields[name] for name in COLUMNS)


def filled(rows):
    """Return what holds these rows, and what they are as records."""
    saved = Saved()
    assert saved.add(rows, [].append)
    return saved, [checkpoint_of(row) for row in rows]


def agree(saved, records):
    """Ask for everything, in every way, and compare with plain lists."""
    assert len(saved) == len(records)
    assert sorted(saved, key=lambda one: one.number) == records
    for call in CALLS:
        versions = [one for one in records if one.call == call]
        assert saved.versions(call) == versions
        assert saved.newest(call) == (versions[-1] if versions else None)
        assert [saved.superseded(one) for one in versions] == [
            one != versions[-1] for one in versions
        ]
        for version in VERSIONS:
            found = next((one for one in versions if one.version == version), None)
            assert saved.get((call, version)) == found
            assert ((call, version) in saved) == (found is not None)
            value = found is not None and found.kind is Kind.VALUE
            assert saved.has_value((call, version)) == value
    for group in {(one.namespace, one.name) for one in records} | set(saved.groups()):
        calls = dict.fromkeys(one.call for one in records if (one.namespace, one.name) == group)
        assert list(saved.calls(group)) == list(calls)
    unlike = [one for one in records if one.cause or one.kind is not Kind.VALUE]
    assert saved.without_value() == unlike


@given(st.data())
def test_as_plain_lists_would_have_it(data):
    """Whatever is asked for, also once some are taken out, is as in a list of records."""
    identities = data.draw(
        st.lists(st.tuples(st.sampled_from(CALLS), st.sampled_from(VERSIONS)), unique=True)
    )
    kinds = st.sampled_from(["value", "value", "error", "cancelled"])
    rows = [
        row_of(
            number, call, version, kind=data.draw(kinds), cause=data.draw(st.sampled_from([0, 7]))
        )
        for number, (call, version) in enumerate(identities, 1)
    ]
    saved, records = filled(rows)
    agree(saved, records)
    if records:
        gone = data.draw(st.lists(st.sampled_from(records), unique_by=lambda one: one.number))
        saved.remove(gone)
        agree(saved, [one for one in records if one not in gone])


def test_every_field_comes_back():
    """No field is lost or exchanged, and an unknown kind stays what it was."""
    row = row_of(3, code=b"d", namespace=b"n", cause=2, execution=4, kind="value", name="ü",
                 label="l", arguments="a", attempt=5, started=0.1, seconds=1e300,
                 payload=b"p" * 1000, pieces=b"q" * 80, output="\0o", base=b"b",
                 code_evidence=b"e", file_evidence=b"f", signature=b"s")  # fmt: skip
    remembered = []
    saved = Saved()
    assert saved.add([row], remembered.append)
    found = saved.get((CALLS[0], VERSIONS[0]))
    expected = Checkpoint(**dict(zip(COLUMNS, row, strict=True)))
    assert dataclasses.astuple(found) == dataclasses.astuple(expected)
    assert found.kind is Kind.VALUE
    assert remembered == [b"q" * 80]
    assert filled([row_of(1, kind="wish")])[0].newest(CALLS[0]).kind == "wish"


def test_the_last_number_and_the_last_end():
    """The number is that of the last row, the time that of what ended last."""
    saved, _ = filled([row_of(1, seconds=100.0), row_of(5, CALLS[1])])
    assert (saved.last_number, saved.last_ended) == (5, 110.0)
    assert (Saved().last_number, Saved().last_ended) == (0, 0.0)


def test_a_row_out_of_order_is_refused():
    """What is not in commit order is not taken for it."""
    assert not Saved().add([row_of(2), row_of(1, CALLS[1])], [].append)


def test_a_checkpoint_takes_little():
    """A million take less than half a gibibyte, and no object that the collector tracks."""
    count = 20_000
    rows = (row_of(number, number.to_bytes(16, "big")) for number in range(count))
    tracemalloc.start()
    try:
        saved, before = Saved(), tracemalloc.get_traced_memory()[0]
        saved.add(rows, [].append)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(saved) == count
    assert taken / count < 450
    assert not gc.is_tracked(saved._newest)
