"""Random notebooks of plain cells: killed after a random cell and resumed, and edited anywhere.

The oracle is plain execution: what a pass leaves and shows is what a plain run of the same
cells leaves and shows, and a cell before which all is as it was when it was saved does not run.
"""

import os
import random

import pytest
from support.plain_notebooks import same

NOTEBOOKS = int(os.environ.get("NBDURABLE_NOTEBOOKS", "6"))
SEED = int(os.environ.get("NBDURABLE_NOTEBOOKS_SEED", "0"))

SETTING = (
    "import random\nimport numpy as np\n"
    "def grow(x, by=1):\n    x.append(by)\n    return len(x)\n"
    "def scaled(x):\n    return [one * factor for one in x]\n"
    "class Box:\n    made = 0\n    def __init__(self, of):\n        self.of = of\n"
    "        Box.made += 1\n"
    "factor = 2\nrandom.seed(5); np.random.seed(5)\n"
    "a, b, c, d, e = [1], [2], [3], {'k': [4]}, np.arange(4)"
)


class Writer:
    """Writes cells that mostly run: each statement is on names that may be anything by then."""

    def __init__(self, seed):
        self.draw = random.Random(seed)

    def name(self):
        """Give one of the names."""
        return self.draw.choice("abcde")

    def statement(self):
        """Give one statement."""
        one, other, third = self.name(), self.name(), self.name()
        number = self.draw.randrange(10)
        return self.draw.choice(
            [
                f"{one} = [{number}]",
                f"{one} = {other}",
                f"{one} = [{other}, {third}]",
                f"{one} = {{'k': {other}}}",
                f"{one} = np.arange({number + 2})",
                f"{one} = {other}[1:]",
                f"{one} = {other}[0]",
                f"{one} = list({other})",
                f"{one}.append({number})",
                f"{one}.append({other})",
                f"{one}[0] = {number}",
                f"{one}['k'] = {other}",
                f"{one} = Box({other})",
                f"{one} = {other}.of",
                f"{one}.of = {other}",
                f"{one} = lambda: {other}",
                f"{one} = {other}()",
                f"grow({one}, {number})",
                f"{one} = scaled({other})",
                f"{one} = grow({other}), Box.made",
                f"factor = {number}",
                f"del {one}",
                f"{one} = random.random()",
                f"{one} = np.random.rand(2)",
                f"for i in range({number % 3}):\n    {one} = [i, {other}]",
                f"if {number} > 4:\n    {one} = {other}",
                f"try:\n    {one} = {other}[5]\nexcept (IndexError, KeyError, TypeError):\n"
                f"    {one} = 0",
                f"print(type({one}).__name__, {number})",
                f"{one}",
                "1 / 0",
            ]
        )

    def cell(self):
        """Give one cell."""
        return "\n".join(self.statement() for _ in range(self.draw.choice((1, 1, 2, 3))))

    def notebook(self):
        """Give a notebook."""
        return [SETTING, *(self.cell() for _ in range(self.draw.randrange(5, 12)))]


@pytest.mark.parametrize("number", range(NOTEBOOKS))
def test_killed_and_edited(notebooks, tmp_path, number):
    """A resumed pass, and one over an edited notebook, leave and show what plain ones do."""
    writer = Writer(SEED * 1000 + number)
    cells = writer.notebook()
    plain = notebooks.run(tmp_path, cells, "plain", trace=True)
    killed = writer.draw.randrange(len(cells))
    notebooks.run(tmp_path, cells, kill_after=killed, settle=writer.draw.random() < 0.5)
    resumed = notebooks.run(tmp_path, cells)
    agree(resumed, plain, cells)
    agree(notebooks.run(tmp_path, cells), plain, cells)
    edited = list(cells)
    at = writer.draw.randrange(1, len(cells))
    edited[at] = writer.cell()
    other = notebooks.run(tmp_path, edited, "plain", trace=True)
    passed = notebooks.run(tmp_path, edited)
    agree(passed, other, edited)
    for place, cell in enumerate(passed.cells):
        unchanged = plain.cells[place]["before"] == other.cells[place]["before"]
        outcome = cell["outcome"]
        kept = not outcome["unsaved"] and not outcome["defines"] and not outcome["raised"]
        if place != at and unchanged and kept:
            assert outcome["restored"], (edited[place], outcome, edited)


def agree(passed, plain, cells):
    """Make sure that a pass is what a plain one is."""
    shown = [one.replace("\r", "") for one in passed.shown]
    assert passed.errors == plain.errors, cells
    assert [text for text in shown if " at 0x" not in text] == [
        text for text in plain.shown if " at 0x" not in text
    ], cells
    mine = {**passed.left, "out": {}}
    assert same(mine, {**plain.left, "out": {}}) == [], cells
