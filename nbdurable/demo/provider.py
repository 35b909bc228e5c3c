"""A simulated paid service for the demonstration: two models over HTTP, and a meter.

It runs in the process of ``nbdurable demo --lab``, outside every kernel, and charges
when a question arrives: what the meter shows is what has been paid, whatever dies.
Answers and delays follow from the question alone, so that every run is the same.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from types import TracebackType


@dataclass(frozen=True, slots=True)
class Model:
    """What a model costs, in dollars a call, and how long it takes, in seconds.

    One in ``stalls`` questions takes it ``stalled`` seconds; 0: none does.
    """

    price: float
    seconds: float
    stalls: int
    stalled: float


MODELS: Final = {
    "cheap": Model(price=0.002, seconds=0.9, stalls=8, stalled=7.0),
    "dear": Model(price=0.03, seconds=0.7, stalls=0, stalled=0.0),
}


class Meter:
    """How many calls of each model have been charged. Called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = dict.fromkeys(MODELS, 0)

    def charge(self, model: str) -> None:
        """Count a call."""
        with self._lock:
            self._calls[model] += 1

    def read(self) -> dict[str, object]:
        """Return the calls of each model, and what they cost in dollars all together."""
        with self._lock:
            calls = dict(self._calls)
        paid = sum(MODELS[model].price * number for model, number in calls.items())
        return {"calls": calls, "paid": round(paid, 3)}


class _Server(ThreadingHTTPServer):
    """A thread for each call, and a line long enough for all that come at once.

    A call that finds no place in the line is tried again by the system after a second:
    that would be taken for a model that stalls.
    """

    daemon_threads = True
    request_queue_size = 256


class Provider:
    """The service on a free port of this machine, for a ``with`` block."""

    def __init__(self) -> None:
        self.meter = Meter()
        self._server = _Server(("127.0.0.1", 0), _handler(self.meter))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where it answers."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def __enter__(self) -> Self:
        """Begin to answer."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


def answer(model: str, question: str) -> tuple[str, float]:
    """Return a model's answer and the seconds it takes, both from the question alone.

    The models know which numbers are prime (``Is 97 prime?``), and nothing else.
    """
    digest = hashlib.sha256(f"{model} {question}".encode()).digest()
    asked = MODELS[model]
    stalled = asked.stalls and digest[0] % asked.stalls == 0
    seconds = asked.stalled if stalled else asked.seconds * (0.6 + digest[1] / 320)
    found = re.fullmatch(r"Is (\d{1,6}) prime\?", question)
    if found is None:
        return "I don't know", seconds
    return "yes" if _is_prime(int(found[1])) else "no", seconds


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))


def _handler(meter: Meter) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers ``/cheap?q=...``, ``/dear?q=...``, ``/meter`` and ``/meter.json``."""

        def do_GET(self) -> None:
            """Answer one request."""
            asked = urlsplit(self.path)
            model = asked.path.strip("/")
            if model in MODELS:
                meter.charge(model)
                said, seconds = answer(model, parse_qs(asked.query).get("q", [""])[0])
                time.sleep(seconds)  # the provider's own time, simulated
                self._reply("application/json", json.dumps({"answer": said}))
            elif model == "meter.json":
                self._reply("application/json", json.dumps(meter.read()))
            elif model == "meter":
                self._reply("text/html; charset=utf-8", _PAGE)
            else:
                self.send_error(404)

        def _reply(self, kind: str, text: str) -> None:
            body = text.encode()
            try:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except ConnectionError:
                self.close_connection = True  # who asked has died, as is the custom here

        def log_message(self, *_: object) -> None:
            """Say nothing: the terminal is JupyterLab's."""

    return Handler


_PAGE: Final = """\
<!doctype html><html lang="en"><meta charset="utf-8"><title>meter</title>
<style>
  :root { color-scheme: light dark; }
  body { font: 15px system-ui, sans-serif; margin: 0; display: flex; gap: 2em; align-items: center;
         padding: 10px 16px; border-left: 4px solid #b8720a; background: Canvas; color: CanvasText }
  #paid { font-size: 30px; font-weight: 650; font-variant-numeric: tabular-nums; min-width: 4em }
  span { font-variant-numeric: tabular-nums }
  #still { opacity: .75 }
</style>
<div><div id="paid">$0.000</div>paid so far</div>
<div><span id="cheap">0</span> calls of the cheap model<br>
<span id="dear">0</span> of the dear one</div>
<div id="still"></div>
<script>
  let before = "", since = Date.now(), moved = false;
  const show = (id, text) => { document.getElementById(id).textContent = text; };
  const tick = async () => {
    try {
      const { calls, paid } = await (await fetch("meter.json")).json();
      show("paid", "$" + paid.toFixed(3));
      show("cheap", calls.cheap);
      show("dear", calls.dear);
      const now = JSON.stringify(calls);
      if (before && now !== before) { since = Date.now(); moved = true; }
      before = now;
      const still = Math.floor((Date.now() - since) / 1000);
      show("still", moved && still < 2 ? "counting" : `standing still for ${still} s`);
    } catch { show("still", "the provider has ended: start nbdurable demo --lab again"); }
    setTimeout(tick, 250);
  };
  tick();
</script></html>
"""
