"""What was written, in pieces: joined, dropped, at its last state."""

import pytest

from nbdurable.output.pieces import Bars, Roll, last_state, messages_of, overwritten, so_far
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


def drawn(*writes):
    """Return what is left of what several sources wrote to stderr, or elsewhere."""
    roll = Roll()
    for source, data, *kind in writes:
        roll.add(kind[0] if kind else "stderr", data, source)
    return [(one.kind, one.data) for one in messages_of(roll.pieces) if one.data]


@pytest.mark.parametrize(
    ("writes", "left"),
    [
        ([(1, "\r 0%"), (1, "\r100%\n")], [("bar", "100%\n")]),
        # What is written elsewhere meanwhile neither ends a bar nor is drawn over.
        (
            [(1, "\r 0%"), (1, "epoch 1\n", "stdout"), (1, "\r50%"), (1, "\r99%\n")],
            [("stdout", "epoch 1\n"), ("bar", "99%\n")],
        ),
        (
            [(1, "\r 1%"), (2, "\r 2%"), (1, "\r11%\n"), (2, "\r22%\n")],
            [("bar", "11%\n"), ("bar", "22%\n")],
        ),
        ([(1, "\r50%")], [("bar", "50%\n")]),
        ([(1, "\r50%"), (1, "\r    \r")], []),
        ([(1, "\r50%"), (1, "\r    \r"), (1, "WARN\n")], [("stderr", "WARN\n")]),
        ([(1, "plain\r"), (1, "PLAIN\n")], [("stderr", "PLAIN\n")]),
        ([(1, "half "), (1, "\rline\n")], [("stderr", "line \n")]),
        ([(1, "one\r\n\r\ntwo\r\n")], [("stderr", "one\n\ntwo\n")]),
        ([(1, "a\n\r1%\r2%\nb\n")], [("stderr", "a\n"), ("bar", "2%\n"), ("stderr", "b\n")]),
        ([(1, "\r 0%\r9%\n", "stdout")], [("stdout", "9%%\n")]),
    ],
)
def test_a_bar_is_a_line_of_its_own(writes, left):
    """A line of stderr that begins with a carriage return is a bar; what ends it is its newline."""
    assert drawn(*writes) == left


@pytest.mark.parametrize("cuts", [1, 2, 3, 5])
def test_a_bar_is_the_same_however_it_was_cut(cuts):
    """Neither the size of the writes nor room that was made in between tells what is a bar."""
    text = "log\n\r 0%\r 50%\r100%\nend\r\n\r1\rX\n"
    whole = drawn((1, text))
    parts = [text[at : at + cuts] for at in range(0, len(text), cuts)]
    assert drawn(*((1, part) for part in parts)) == whole
    roll = Roll()
    for part in parts:
        roll.add("stderr", part, 1)
        roll.compact()
    assert [(one.kind, one.data) for one in messages_of(roll.pieces) if one.data] == whole


def test_a_long_bar_takes_no_more_room_than_it_shows():
    """A bar that is drawn for hours is kept as what is to be seen of it."""
    bars = Bars()
    assert bars.take("\r", 1) == []
    assert bars.take("first", 1) == [("bar", "")]  # where it begins is told once
    for number in range(20_000):
        assert bars.take(f"\r{number:6} {'=' * 40}", 1) == []
    assert bars.moving(1).split()[0] == "19999"
    assert sum(map(len, bars._lines.values())) < 10_000
    assert bars.rest() == [("bar", f" 19999 {'=' * 40}\n", 1)]
