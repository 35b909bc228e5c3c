"""The live view's publisher, on a screen that remembers."""

from __future__ import annotations

import threading
import time
from contextvars import ContextVar
from itertools import pairwise

import pytest

from nbdurable.events import AttemptStarted, RunFinished, RunStarted, StepCreated, StepFinished
from nbdurable.records import Kind, RunStatus, Why
from nbdurable.view import words
from nbdurable.view.live import LiveView, ScreenClosedError

PATIENCE = 20


class Screen:
    """Remembers what it was told, and when; lets a test wait for it."""

    def __init__(self):
        self.told: list[tuple[str, object, float]] = []
        self.news = threading.Condition()
        self.prepared = threading.Event()
        self.may_prepare = threading.Event()
        self.may_prepare.set()
        self.error: Exception | None = None
        self.broken_at_once = False
        self.asked = False
        self.opened_in = None

    def reserve(self):
        """Remember that a place was kept."""
        self._tell("reserve", None)

    def prepare(self):
        """Take as long as the test wants."""
        self.prepared.set()
        self.may_prepare.wait(PATIENCE)

    def open(self, view, now):
        """Remember that it was shown, and in which context."""
        self.opened_in = CELL.get()
        self._tell("open", None)

    def send(self, view, now):
        """Remember how the run stood."""
        self.asked = False
        self._tell("send", (len(view.steps), view.status, view.live))

    def beat(self, now):
        """Remember a sign of life."""
        self._tell("beat", now)

    def clear(self):
        """Remember the clearing."""
        self._tell("clear", None)

    def summarise(self, view):
        """Remember the summary's text."""
        self._tell("summary", words.text(view))

    def _tell(self, what, content):
        if self.error is not None and (what != "reserve" or self.broken_at_once):
            raise self.error
        with self.news:
            self.told.append((what, content, time.monotonic()))
            self.news.notify_all()

    def all(self, what):
        """Return all contents of one sort."""
        return [content for said, content, _ in self.told if said == what]

    def wait_for(self, condition):
        """Wait until the condition holds."""
        with self.news:
            assert self.news.wait_for(condition, PATIENCE)


CELL: ContextVar[str] = ContextVar("CELL", default="no cell")


def started():
    """Make the event of a run's begin."""
    return RunStarted("quotes", "run-1", 1, 0, time.time())


def created(place):
    """Make the event of a new step."""
    return StepCreated(place, "step", "f", f"f({place})", time.time())


def ended():
    """Make the event of a run's end."""
    return RunFinished(RunStatus.FINISHED, time.time())


@pytest.fixture
def screen():
    """Return a screen that remembers."""
    return Screen()


def living(screen, **more):
    """Make a view that shows at once and publishes fast."""
    return LiveView("quotes", screen, **{"delay": 0.0, "period": 0.01} | more)


def test_news_are_published_and_the_summary_replaces_them(screen):
    """Opened once, told of changes, told the end, cleared, summarised: in this order."""
    view = living(screen)
    view(started())
    view.show()
    screen.wait_for(lambda: screen.all("open"))
    view(created(0))
    screen.wait_for(lambda: screen.all("send"))
    assert screen.all("send")[-1] == (1, RunStatus.RUNNING, True)
    view(created(1))
    view(ended())
    view.finish()
    assert [said for said, *_ in screen.told[-3:]] == ["send", "clear", "summary"]
    assert screen.all("send")[-1] == (2, RunStatus.FINISHED, False)
    assert screen.all("summary") == ["quotes: 2 steps, finished"]
    assert len(screen.all("open")) == 1


def test_a_fast_run_shows_the_summary_alone(screen):
    """A run that ends within the delay opens nothing and prepares nothing."""
    view = LiveView("quotes", screen, delay=60)
    view.show()
    thread = view._publisher
    view(started())
    view(ended())
    view.finish()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert [said for said, *_ in screen.told] == ["reserve", "summary"]
    assert not screen.prepared.is_set()


def test_a_view_keeps_its_place_at_once(screen):
    """Before anything else is shown: so a run that is over at once leaves the same outputs."""
    view = LiveView("quotes", screen, delay=60)
    view.show()
    assert [said for said, *_ in screen.told] == ["reserve"]
    view.finish()
    assert len(screen.all("reserve")) == 1


def test_finish_does_not_wait_for_a_slow_import(screen):
    """While the widget library loads, the run may end: no view opens afterwards."""
    screen.may_prepare.clear()
    view = living(screen)
    view.show()
    thread = view._publisher
    assert screen.prepared.wait(PATIENCE)
    view.finish()
    assert [said for said, *_ in screen.told] == ["reserve", "summary"]
    screen.may_prepare.set()
    thread.join(PATIENCE)
    assert [said for said, *_ in screen.told] == ["reserve", "summary"]


def test_states_keep_their_distance(screen):
    """Under a stream of events, two states are never closer than the period."""
    view = living(screen, period=0.05)
    view(started())
    view.show()
    stop = threading.Event()

    def feed():
        place = 0
        while not stop.is_set():
            view(created(place))
            place += 1
            stop.wait(0.0005)

    feeder = threading.Thread(target=feed)
    feeder.start()
    screen.wait_for(lambda: len(screen.all("send")) >= 6)
    stop.set()
    feeder.join()
    sent = [at for said, _, at in screen.told if said == "send"]
    assert all(after - before >= 0.05 for before, after in pairwise(sent))
    view.finish()


def test_a_quiet_run_sends_signs_of_life(screen):
    """Without news there is a beat, and no state is repeated."""
    view = living(screen, beat=0.02, clock=lambda: 42.0)
    view(started())
    view.show()
    screen.wait_for(lambda: len(screen.all("beat")) >= 3)
    assert screen.all("beat")[0] == 42.0
    assert screen.all("send") == []
    view.finish()


def test_what_a_person_asks_for_is_shown_without_news(screen):
    """Another part of the run is shown soon, even where nothing happens in it."""
    view = living(screen, beat=60)
    view(started())
    view.show()
    screen.wait_for(lambda: screen.all("open"))
    screen.asked = True
    screen.wait_for(lambda: screen.all("send"))
    view.finish()


def test_the_publisher_runs_in_the_context_of_the_cell(screen):
    """A plain thread's messages would land in another cell."""
    token = CELL.set("this cell")
    view = living(screen)
    view.show()
    screen.wait_for(lambda: screen.all("open"))
    CELL.reset(token)
    assert screen.opened_in == "this cell"
    view.finish()


def test_observing_never_raises_and_never_folds(screen):
    """Taking an event is an append, before, during and after the run; nonsense too."""
    view = living(screen)
    for place in range(20_000):
        view(created(place))
    assert view.run.steps == {}
    view.finish()
    assert len(view.run.steps) == 20_000
    view(ended())
    view("no event")


def test_show_and_finish_count_once(screen):
    """A second show starts no second publisher, and a second finish does nothing."""
    view = living(screen)
    view(started())
    view.show()
    thread = view._publisher
    view.show()
    assert view._publisher is thread
    view.finish()
    view.finish()
    view.show()
    assert view._publisher is thread
    assert len(screen.all("summary")) == 1


def test_a_closed_channel_ends_the_view_and_nothing_else(screen):
    """When the kernel's channel is closed the publisher stops; the run goes on."""
    screen.error = ScreenClosedError()
    view = living(screen)
    view.show()
    view._publisher.join(PATIENCE)
    assert view.lost is screen.error
    view(started())
    view.finish()
    assert view.run.name == "quotes"
    assert [said for said, *_ in screen.told] == ["reserve"]
    screen.broken_at_once = True
    late = living(screen)
    late.show()  # closed from the beginning: there is nobody to be shown anything
    assert (late.lost, late._publisher) == (screen.error, None)


def test_other_errors_are_not_hidden(screen, monkeypatch):
    """Only the closed channel is expected: a defect of the view comes to light."""
    seen = []
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(args.exc_value))
    screen.error = RuntimeError("a defect")
    view = living(screen)
    view.show()
    view._publisher.join(PATIENCE)
    assert seen == [screen.error]
    screen.error = None
    view.finish()


def test_without_a_front_end_nothing_is_shown(capsys):
    """In a plain interpreter show and finish are silent; the view is folded all the same."""
    view = LiveView("quotes", None)
    view.show()
    view(started())
    view(created(0))
    view(AttemptStarted(0, 1, Why.NEW, "", time.time()))
    view(StepFinished(0, Kind.VALUE, 1, 0.1, True, "", time.time()))
    view.finish()
    assert len(view.run.steps) == 1
    assert capsys.readouterr() == ("", "")
