"""What was written, in pieces: joined, dropped, at its last state."""

import pytest

from nbdurable.output.pieces import Roll, last_state, messages_of, overwritten, so_far
from nbdurable.records import Message


def test_pieces_go_on_or_begin():
    """Text of one stream from one source is one piece; a display always is one of its own."""
    roll, mine, other = Roll(), object(), object()
    for kind, data, source in [
        ("stdout", "a", mine),
        ("stdout", "b", mine),
        ("stdout", "c", other),
        ("stderr", "d", other),
        ("display", "{}", other),
        ("display", "[]", other),
    ]:
        roll.add(kind, data, source)
    assert [piece.text for piece in roll.pieces] == ["ab", "c", "d", "{}", "[]"]
    assert roll.size == 8


def test_messages_join_what_several_sources_wrote():
    """Messages don't tell sources apart, but each source's carriage returns are its own."""
    roll = Roll()
    for data, source in [("a\r", 1), ("xy\rz", 2), ("b", 1)]:
        roll.add("stdout", data, source)
    roll.add("display", "{}", 1)
    roll.add("display", "{}", 2)
    assert messages_of(roll.pieces) == (
        Message("stdout", "azyb"),
        Message("display", "{}"),
        Message("display", "{}"),
    )
    assert messages_of(roll.pieces, settled=False)[0] == Message("stdout", "a\rxy\rzb")


def test_pieces_are_dropped_by_their_source():
    """What one source wrote can be taken out; the size follows."""
    roll = Roll()
    for data, source in [("ab", 1), ("cde", 2), ("f", 1)]:
        roll.add("stdout", data, source)
    assert not roll.drop({3})
    assert roll.drop({1})
    assert (roll.size, [piece.text for piece in roll.pieces]) == (3, ["cde"])


def test_room_is_made_of_what_was_overwritten():
    """Compacting keeps what is shown, and where the last line goes on; displays stay."""
    roll = Roll()
    roll.add("stdout", "1\r2\r3\nabc\rd", 1)
    roll.add("display", "1\r2", 1)
    roll.compact()
    assert [piece.text for piece in roll.pieces] == ["3\nabc\rd", "1\r2"]
    assert roll.size == 10


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a", "a"), ("10\r9", "90"), ("a\r\nb", "a\nb"), ("x\ny\rz\n", "x\nz\n"), ("\r\r", "")],
)
def test_what_a_terminal_shows(text, shown):
    """Carriage returns overwrite in their line; one before a newline is part of it."""
    assert last_state(text) == shown
    if "\n" not in text:
        assert overwritten(text) == shown


@pytest.mark.parametrize("text", ["ab\rc", "1\r2\n3\r4", "a\rb\r", "plain", "\rx\r\ny\rz"])
@pytest.mark.parametrize("more", ["", "d", "\r", "\re", "\n", "f\ng"])
def test_a_line_can_go_on_after_it_was_compacted(text, more):
    """Compacting changes nothing of what is shown, whatever follows."""
    assert last_state(so_far(text) + more) == last_state(text + more)
