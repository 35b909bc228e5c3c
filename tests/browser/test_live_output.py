"""Steps' output on a real screen: it comes while they run, and stays as replay shows it."""

from __future__ import annotations

import secrets

import pytest
from playwright.sync_api import expect

SETUP = """\
%load_ext nbdurable
import pathlib, threading
from IPython.display import HTML, clear_output, display
from nbdurable import go, step
from tqdm.auto import tqdm
def wait_for(name):
    while not pathlib.Path(f"PREFIX-{name}").exists():
        threading.Event().wait(0.01)
"""
CELL = """\
%%durable shown
print("the cell begins")

def bar():
    print("a bar begins")
    for number in (25, 50, 100):
        print(f"\\r{number:3} percent", end="")
        wait_for(number)
    print()

def rounds():
    for number in range(2):
        clear_output(wait=True)
        print("round", number)
        display(HTML(f"<b>picture {number}</b>"))
        wait_for(f"round {number}")

def widget():
    for number in tqdm(range(3), mininterval=0):
        wait_for(f"widget {number}")
    print("the end")

"""
WAITS = {
    "blocking": "go(bar).result()\nprint('between')\nstep(rounds)()\ngo(widget).result()",
    "awaiting": "await go(bar)\nprint('between')\nawait go(rounds)\nawait go(widget)",
}


def outputs(lab):
    """Return what the saved cell shows, but for the status of the run."""
    shown = []
    for output in lab.saved().cells[1].outputs:
        if output.output_type == "stream":
            # Where the status was, between two lines of one stream, it is one stream still.
            if shown and shown[-1][0] == output.name:
                shown[-1][1] += output.text
            else:
                shown.append([output.name, output.text])
        elif output.data and "shown" not in output.data.get("text/plain", ""):
            shown.append(["display", dict(output.data)])
    return shown


@pytest.mark.parametrize("waits", WAITS.values(), ids=WAITS)
def test_output_comes_live_and_is_what_replay_shows(lab, waits):
    """A bar moves in its line, cleared output goes while the cell's own stays, a widget fills."""
    prefix = secrets.token_hex(4)
    lab.open(SETUP.replace("PREFIX", prefix), CELL + waits)
    lab.run(0)
    lab.run(1, wait=False)
    output = lab.output(1)
    area = lab.page.locator(".jp-Notebook .jp-Cell").nth(1).locator(".jp-Cell-outputWrapper")

    def go_on(name):
        (lab.server.root / f"{prefix}-{name}").touch()

    def shows(text, count=1):
        expect(output.filter(has_text=text)).to_have_count(count)

    for number in (25, 50, 100):
        shows(f"{number:3} percent")
        shows("percent")
        shows("a bar begins")
        lab.picture(f"bar {number}", area)
        go_on(number)
    for number in range(2):
        shows(f"round {number}")
        shows(f"picture {number}")
        shows("picture")
        shows("100 percent")
        shows("the cell begins")
        expect(output.locator(".nbd-view")).to_have_count(1)
        go_on(f"round {number}")
    for number in range(3):
        expect(output.locator(".widget-hbox").filter(has_text=f"{number}/3")).to_be_visible()
        if number == 1:
            lab.picture("live", area)
        go_on(f"widget {number}")
    lab.idle()
    expect(output.locator(".widget-hbox")).to_have_count(0)
    shows("3/3")
    lab.picture("ended", area)
    first = outputs(lab)
    before, picture, end = first
    assert before == ["stdout", "the cell begins\na bar begins\n100 percent\nbetween\nround 1\n"]
    assert picture[1]["text/html"] == "<b>picture 1</b>"
    assert end[0] == "stdout"
    assert end[1].endswith("]\nthe end\n")
    assert "3/3" in end[1]

    lab.run(1)
    lab.idle()
    shows("the end")
    assert outputs(lab) == first
    lab.picture("replayed", area)
