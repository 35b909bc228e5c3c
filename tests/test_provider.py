"""The simulated provider of the demonstration: it charges, and always answers the same."""

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from nbdurable.provider import MODELS, Provider, answer


def get(address):
    """Give what is there."""
    with urllib.request.urlopen(address, timeout=20) as reply:
        return reply.read().decode()


@pytest.fixture
def provider(monkeypatch):
    """Give one that answers at once."""
    monkeypatch.setattr("nbdurable.provider.time.sleep", lambda seconds: None)
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


def test_the_same_question_gets_the_same_answer(provider):
    """Answers and delays follow from the question alone."""
    replies = {get(f"{provider.url}/cheap?q=will%20it%20hold") for _ in range(3)}
    assert replies == {json.dumps({"answer": answer("cheap", "will it hold")[0]})}


def test_some_cheap_calls_stall_and_no_dear_one():
    """The hedge is of use for some questions, and not for most."""
    cheap = [answer("cheap", f"Q{n}: will it hold?")[1] for n in range(1, 201)]
    assert 10 < sum(seconds > 2 for seconds in cheap) < 40
    assert all(answer("dear", f"Q{n}")[1] < 2 for n in range(200))
    assert max(cheap) == MODELS["cheap"].stalled


def test_the_meters_page_and_what_is_not_there(provider):
    """The page shows the meter; other addresses are refused and charge nothing."""
    assert "paid so far" in get(f"{provider.url}/meter")
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(f"{provider.url}/other?q=x")
    refused.value.close()
    assert refused.value.code == 404
    assert provider.meter.read()["paid"] == 0
