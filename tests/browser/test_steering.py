"""A step looked at, cancelled, tried again, and a run suspended: from the live view."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect
from support.barriers import barriers

LOAD = "%load_ext nbdurable"
SETUP = """\
import pathlib, time
from nbdurable import StepCancelledError, gather, step

def counted(name):
    with open("calls.log", "a") as log:
        print(name, file=log)

@step
def quick(n):
    counted(f"quick({n})")
    return n

@step
def slow(n, api_key):
    print("slow has begun")
    counted("slow")
    while not pathlib.Path("go").exists():
        time.sleep(0.05)
    print("slow has ended")
    return n

@step
def refuse(n):
    counted(f"refuse({n})")
    raise ValueError(f"no {n}")

@step(retries=1, backoff=1000, max_backoff=1000)
def shaky():
    counted("shaky")
    if not pathlib.Path("go").exists():
        raise OSError("not yet")
    return "steady"
"""
BLOCKING = """\
%%durable controlled
one, other = quick.go(1), slow.go(2, api_key="sk-0123456789abcdef")
try:
    print("got", gather(one, other).result())
except StepCancelledError as error:
    print("cancelled:", error)
"""
AWAITING = BLOCKING.replace("gather(one, other).result()", "await gather(one, other)")
SHAKY = """\
%%durable shaken
print(shaky.go().result())
"""


REFUSED = """\
%%durable refused
gather(refuse.go(0), refuse.go(1), return_exceptions=True).result()
print("got", slow.go(2, api_key="sk-0123456789abcdef").result())
"""


@pytest.fixture(autouse=True)
def tidy(lab):
    """Let bodies end that wait for the test."""
    for name in ("go", "calls.log"):
        (lab.server.root / name).unlink(missing_ok=True)
    yield
    (lab.server.root / "go").touch()


def begun(lab, cell, *more):
    """Run the cell, and give its output with its slow step's row when that runs."""
    lab.open(LOAD, SETUP, cell, *more)
    lab.run(0)
    lab.run(1)
    lab.run(2, wait=False)
    output = lab.output(2)
    slow = output.locator(".nbd-view .nbd-row", has_text="slow(2")
    expect(slow).to_contain_text("running")
    return output, slow


def calls(lab):
    """Return which bodies have been run."""
    return sorted((lab.server.root / "calls.log").read_text().split())


@pytest.mark.parametrize("cell", [BLOCKING, AWAITING], ids=["blocking", "awaiting"])
def test_a_step_is_looked_at_and_cancelled(lab, cell):
    """A click shows arguments and output while the cell waits; Cancel ends the step, for good."""
    output, slow = begun(lab, cell)
    slow.click()
    detail = output.locator(".nbd-detail")
    expect(detail).to_contain_text("api_key=***")
    expect(detail).to_contain_text("slow has begun")
    lab.picture("detail")
    # A kernel that has answered says that it is idle; the view says that it isn't.
    lab.page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget"
        ".sessionContext.session?.kernel?.status === 'busy'"
    )
    detail.get_by_role("button", name="Cancel step").click()
    lab.idle()
    expect(output.filter(has_text="cancelled:")).to_be_visible()
    summary = output.filter(has_text="1 ran, 1 cancelled")
    expect(summary).to_be_visible()
    lab.picture("cancelled")
    (lab.server.root / "go").touch()
    lab.run(2)
    lab.idle()
    expect(output.filter(has_text="1 replayed, 1 cancelled")).to_be_visible()
    assert calls(lab) == ["quick(1)", "slow"]


def test_a_kernel_that_does_not_listen(lab):
    """Where nothing is answered in mid-cell there are no buttons, but a line that says so."""
    deaf = "\ntype(get_ipython().kernel)._supports_kernel_subshells = False"
    lab.open(LOAD + deaf, SETUP, BLOCKING)
    lab.run(0)
    lab.run(1)
    lab.run(2, wait=False)
    output = lab.output(2)
    slow = output.locator(".nbd-view .nbd-row", has_text="slow(2")
    expect(slow).to_contain_text("running")
    said = output.locator(".nbd-answer")
    expect(said).to_contain_text("answers when the cell has ended")
    expect(output.get_by_role("button", name="Stop")).to_be_hidden()
    slow.click()
    expect(output.get_by_role("button", name="Cancel step")).to_be_hidden()
    lab.picture("deaf")
    (lab.server.root / "go").touch()
    lab.idle()
    expect(output.filter(has_text="got [1, 2]")).to_be_visible()


def test_the_next_kernel_shows_what_the_dead_one_did(lab):
    """`%durable status NAME` tells a past run with its steps' details, in a saved notebook, too."""
    begun(lab, BLOCKING, "%durable status controlled")
    lab.kill_kernel()
    lab.page.get_by_role("dialog").get_by_role("button", name="Ok").click()
    lab.run(0)
    lab.run(3)
    lab.idle()
    output = lab.output(3)
    expect(output).to_contain_text("controlled: 2 steps, died: 1 ran, 1 not finished")
    slow = output.locator("tr", has_text="slow(2")
    expect(slow).to_contain_text("in flight when the kernel died")
    quick = output.locator("tr", has_text="quick(1)")
    quick.get_by_text("more").click()
    expect(quick).to_contain_text("value, number 1 in the order of commits")
    lab.picture("past")
    lab.saved()
    lab.page.evaluate("() => window.jupyterapp.serviceManager.sessions.shutdownAll()")
    lab.show()
    expect(output).to_contain_text("controlled: 2 steps, died: 1 ran, 1 not finished")
    assert output.locator("svg rect").count() == 2
    lab.picture("past-reopened", output)


@pytest.mark.parametrize("cell", [BLOCKING, AWAITING], ids=["blocking", "awaiting"])
def test_a_run_is_suspended_and_resumed(lab, cell):
    """Stop stops the cell as the stop button does; running it again goes on."""
    output, _ = begun(lab, cell)
    output.get_by_role("button", name="Stop").click()
    lab.idle()
    expect(output.filter(has_text="interrupted")).to_be_visible()
    said = output.filter(has_text="KeyboardInterrupt")
    expect(said).to_have_text(
        "KeyboardInterrupt: controlled was stopped; run this cell again to resume, "
        "and what is saved is not run again"
    )
    lab.picture("suspended")
    (lab.server.root / "go").touch()
    lab.run(2)
    lab.idle()
    expect(output.filter(has_text="got [1, 2]")).to_be_visible()
    assert calls(lab).count("quick(1)") == 1


def test_failures_are_looked_at_and_tried_again(lab):
    """Beside the table where there is room; what failed is taken out when the cell has ended."""
    lab.page.set_viewport_size({"width": 1800, "height": 860})
    output, _ = begun(lab, REFUSED)
    row = output.locator(".nbd-view .nbd-row", has_text="refuse(0)")
    row.click()
    detail = output.locator(".nbd-side .nbd-detail")
    expect(detail).to_contain_text("ValueError: no 0")
    expect(detail.locator("dt", has_text="Arguments")).to_be_visible()
    expect(detail.get_by_role("button", name="Copy error")).to_be_visible()
    table = output.locator(".nbd-scroll").bounding_box()
    assert detail.bounding_box()["x"] >= table["x"] + table["width"]
    assert detail.bounding_box()["y"] < table["y"] + table["height"]
    assert barriers(lab, ".nbd-view") == []
    lab.picture("beside", output.first)
    lab.page.set_viewport_size({"width": 1000, "height": 860})
    expect(output.locator(".nbd-detail-row .nbd-detail")).to_contain_text("ValueError: no 0")
    output.locator(".nbd-detail").get_by_role("button", name="Retry").click()
    said = output.locator(".nbd-answer")
    expect(said).to_contain_text("refuse(0): taken out when this cell has ended")
    lab.picture("below", output.first)
    output.get_by_role("button", name="Retry all failed").click()
    expect(said).to_contain_text("2 failed steps: taken out when this cell has ended")
    (lab.server.root / "go").touch()
    lab.idle()
    expect(output.filter(has_text="refused: run its cell again to make them anew")).to_be_visible()
    assert calls(lab) == ["refuse(0)", "refuse(1)", "slow"]
    lab.run(2)
    lab.idle()
    expect(output.filter(has_text="1 replayed, 2 failed")).to_be_visible()
    assert calls(lab) == ["refuse(0)", "refuse(0)", "refuse(1)", "refuse(1)", "slow"]


def test_a_backoff_is_cut_short(lab):
    """Retry now begins the next attempt, long before its time."""
    lab.open(LOAD, SETUP, SHAKY)
    lab.run(0)
    lab.run(1)
    lab.run(2, wait=False)
    output = lab.output(2)
    row = output.locator(".nbd-view .nbd-row", has_text="shaky()")
    expect(row).to_contain_text("retrying in")
    (lab.server.root / "go").touch()
    row.focus()
    lab.page.keyboard.press("Enter")
    expect(output.locator(".nbd-detail")).to_contain_text("OSError: not yet")
    lab.picture("retrying")
    output.get_by_role("button", name="Retry now").click()
    lab.idle()
    expect(output.filter(has_text="steady").first).to_be_visible()
    assert calls(lab) == ["shaky", "shaky"]
