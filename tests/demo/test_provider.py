"""The simulated provider of the demonstration: it charges, and always answers the same."""

import contextlib
import json
import socket
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from nbdurable.demo import provider as provider_module
from nbdurable.demo.provider import MODELS, Provider, answer


def get(address):
    """Return what is there."""
    with urllib.request.urlopen(address, timeout=20) as reply:
        return reply.read().decode()


@pytest.fixture
def provider(monkeypatch):
    """Yield one that answers at once."""
    monkeypatch.setattr("nbdurable.demo.provider.time.sleep", lambda seconds: None)
    with Provider() as made:
        yield made


def test_calls_are_charged_when_they_arrive(provider):
    """Each call counts once, from however many threads; the meter tells calls and dollars."""
    assert json.loads(get(f"{provider.url}/meter.json")) == {
        "calls": {"cheap": 0, "dear": 0},
        "paid": 0,
    }
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: get(f"{provider.url}/cheap?q={n}"), range(40)))
    get(f"{provider.url}/dear?q=x")
    told = json.loads(get(f"{provider.url}/meter.json"))
    assert told == {"calls": {"cheap": 40, "dear": 1}, "paid": 0.11}
    assert provider.meter.read() == told


def test_many_calls_at_once_stand_in_line(monkeypatch):
    """None of them is sent away to try again after a second, however busy the provider is."""
    calls, accepted = 100, threading.Event()
    process = provider_module._Server.process_request

    def late(self, *given):
        accepted.wait(10)
        process(self, *given)

    monkeypatch.setattr(provider_module._Server, "process_request", late)
    with Provider() as made, contextlib.ExitStack() as stack:
        address = urlsplit(made.url)
        for _ in range(calls):
            stack.enter_context(
                contextlib.closing(
                    socket.create_connection((address.hostname, address.port), timeout=0.5)
                )
            )
        accepted.set()


def test_the_same_question_gets_the_same_answer(provider):
    """Answers and delays follow from the question alone."""
    replies = {get(f"{provider.url}/cheap?q=Is%2097%20prime%3F") for _ in range(3)}
    assert replies == {json.dumps({"answer": "yes"})}
    primes = [n for n in range(1, 201) if answer("dear", f"Is {n} prime?")[0] == "yes"]
    assert (len(primes), primes[:6], primes[-1]) == (46, [2, 3, 5, 7, 11, 13], 199)
    assert answer("dear", "Is 4 x 4 prime?")[0] == "I don't know"


def test_some_cheap_calls_stall_and_no_dear_one():
    """The hedge is of use for some questions, and not for most."""
    cheap = [answer("cheap", f"Is {n} prime?")[1] for n in range(1, 201)]
    assert 10 < sum(seconds > 2 for seconds in cheap) < 40
    assert all(answer("dear", f"Is {n} prime?")[1] < 2 for n in range(1, 201))
    assert max(cheap) == MODELS["cheap"].stalled


def test_the_notebook_is_right_about_the_bill():
    """What 200 answers cost, and what they cost if the first 80 calls are made again."""
    notebook = Path(__file__).parents[2] / "notebooks" / "demo" / "hedged.ipynb"
    said = " ".join(json.loads(notebook.read_text(encoding="utf-8"))["cells"][-1]["source"])
    stalls = [answer("cheap", f"Is {n} prime?")[1] > 2 for n in range(1, 201)]
    cost = 200 * MODELS["cheap"].price + sum(stalls) * MODELS["dear"].price
    assert f"the 200 answers cost {cost:.2f} dollars" in said
    lost = 70 * MODELS["cheap"].price + sum(stalls[:65]) * MODELS["dear"].price
    assert f"about {cost + lost:.2f}" in said


def test_the_meters_page_and_what_is_not_there(provider):
    """The page shows the meter; other addresses are refused and charge nothing."""
    assert "paid so far" in get(f"{provider.url}/meter")
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(f"{provider.url}/other?q=x")
    refused.value.close()
    assert refused.value.code == 404
    assert provider.meter.read()["paid"] == 0
