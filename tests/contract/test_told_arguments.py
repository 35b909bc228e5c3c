"""What is told of a step's arguments when it has let go of them."""

import pytest

from nbdurable.steps.arguments import told_arguments


@pytest.mark.parametrize(
    ("label", "digests", "told"),
    [
        ("f()", "", []),
        ("f(1, 'a, b')", "b=11;a=22", ["1", "'a, b'"]),  # which is which, nobody knows
        ("f(x=[1, 2], y=<dict of 3>)", "x=11;y=22", ["x=[1, 2]", "y=<dict of 3>"]),
        ("fit(depth=2)", f"X={'ab' * 16};depth=11", ["depth=2", "X: digest abababababab"]),
        ("f(1, 2, 3, 4, ...)", "a=1;b=2;c=3;d=4;e=5", ["1", "2", "3", "4", "a: digest 1",
         "b: digest 2", "c: digest 3", "d: digest 4", "e: digest 5"]),
        ("f(api_key=***)", "api_key=masked", ["api_key=***"]),
    ],
)  # fmt: skip
def test_arguments_are_told_from_label_and_digests(label, digests, told):
    """Values as far as the label shows them, and digests of what it doesn't; nothing guessed."""
    assert told_arguments(label, digests).splitlines() == told
