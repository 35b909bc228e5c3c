"""Real kernels for tests: start one, run cells as a front end does, interrupt, kill.

A `Kernel` speaks to a real ipykernel as JupyterLab does: each cell may carry
its cell id, and its outputs come back as a front end would show them. Nothing
here waits for a fixed time: a cell ends when the kernel says that it is idle.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_client.manager import KernelManager

from nbdurable.headless.kernels import process_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent
TIMEOUT = 60.0


class KernelDiedError(Exception):
    """The kernel's process is gone; what it had sent is in ``result``."""

    def __init__(self, result: Result) -> None:
        super().__init__(result)
        self.result = result


@dataclass
class Result:
    """What a cell showed, and how it ended."""

    outputs: list[dict[str, Any]] = field(default_factory=list)
    status: str = ""
    ename: str = ""
    evalue: str = ""
    traceback: list[str] = field(default_factory=list)
    count: int | None = None
    payload: list[dict[str, Any]] = field(default_factory=list)

    @property
    def stdout(self) -> str:
        """Everything printed."""
        return self._stream("stdout")

    @property
    def stderr(self) -> str:
        """Everything written to stderr."""
        return self._stream("stderr")

    def _stream(self, name: str) -> str:
        return "".join(o["text"] for o in self.outputs if o.get("name") == name)

    @property
    def value(self) -> str | None:
        """The text of Out[n], None if nothing was shown."""
        shown = [o for o in self.outputs if o["type"] == "execute_result"]
        return shown[-1]["data"].get("text/plain") if shown else None

    @property
    def displays(self) -> list[dict[str, Any]]:
        """The bundles displayed and still there, in order."""
        return [o["data"] for o in self.outputs if o["type"] == "display_data" and o["data"]]

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The error outputs; a plain failure has exactly one."""
        return [o for o in self.outputs if o["type"] == "error"]

    @property
    def text(self) -> str:
        """All text on the screen, for a message or a search."""
        parts = [self.stdout, self.stderr, self.value or ""]
        parts += [d.get("text/plain", "") for d in self.displays]
        parts += ["\n".join(e["traceback"]) for e in self.errors]
        return "\n".join(part for part in parts if part)


class Kernel:
    """One kernel and its client.

    Args:
        folder: The kernel's working directory.
        env: What its environment has beyond this process's.
        notebook: The path it is told to serve, as the Jupyter server does.
    """

    def __init__(
        self, folder: Path, env: dict[str, str] | None = None, notebook: Path | None = None
    ) -> None:
        self.folder = folder
        self._env = {k: v for k, v in os.environ.items() if not k.startswith("JPY_")}
        paths = [str(ROOT), self._env.get("PYTHONPATH", "")]
        self._env["PYTHONPATH"] = os.pathsep.join(p for p in paths if p)
        self._env |= env or {}
        if notebook is not None:
            self._env["JPY_SESSION_NAME"] = str(notebook)
        self._busy: str | None = None
        self.start()

    def start(self) -> None:
        """Start the process and wait until it answers."""
        self.manager = KernelManager(kernel_name="python3")
        self.manager.kernel_spec.argv[0] = sys.executable
        self.manager.start_kernel(cwd=str(self.folder), env=self._env)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=TIMEOUT)

    @property
    def pid(self) -> int:
        """The kernel's process."""
        return int(process_of(self.manager).pid)

    def run(self, code: str, cell_id: str | None = None, *, timeout: float = TIMEOUT) -> Result:
        """Run a cell to its end.

        Raises:
            KernelDiedError: The kernel died meanwhile.
        """
        self.begin(code, cell_id)
        return self.finish(timeout=timeout)

    def begin(self, code: str, cell_id: str | None = None) -> None:
        """Send a cell and don't wait; `wait_for` and `finish` do."""
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,
        }
        message = self.client.session.msg("execute_request", content)
        if cell_id is not None:
            message["metadata"]["cellId"] = cell_id
        self.client.shell_channel.send(message)
        self._busy = message["header"]["msg_id"]
        self._result = Result()
        self._ids: dict[str, dict[str, Any]] = {}
        self._rows: list[dict[str, Any]] = []
        self._clear = False

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """What the running cell shows by now."""
        return self._result.outputs

    def wait_for(self, text: str, *, timeout: float = TIMEOUT) -> None:
        """Read the running cell's outputs until ``text`` was printed."""
        deadline = time.monotonic() + timeout
        while text not in self._result.stdout:
            assert not self._read(deadline), f"the cell ended without {text!r}"

    def wait_for_rows(
        self, wanted: Callable[[list[dict[str, Any]]], bool], *, timeout: float = TIMEOUT
    ) -> None:
        """Read what the running cell publishes until its live view shows the wanted rows."""
        deadline = time.monotonic() + timeout
        while not wanted(self._rows):
            assert not self._read(deadline), f"the cell ended with the view at {self._rows}"

    def finish(self, *, timeout: float = TIMEOUT) -> Result:
        """Read the running cell's outputs to its end."""
        deadline = time.monotonic() + timeout
        while not self._read(deadline):
            pass
        reply = self._reply(deadline)
        result, self._busy = self._result, None
        result.status = reply["status"]
        result.count = reply.get("execution_count")
        result.payload = reply.get("payload", [])
        if result.status == "error":
            result.ename, result.evalue = reply["ename"], reply["evalue"]
            result.traceback = reply["traceback"]
        return result

    def interrupt(self) -> None:
        """Press the stop button."""
        self.manager.interrupt_kernel()

    def kill(self) -> None:
        """Kill the process at once, as a crash does, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        process_of(self.manager).wait()

    def restart(self) -> None:
        """Start a new process, as after a crash or by the restart button."""
        self.close()
        self.start()

    def close(self) -> None:
        """End the process if it lives."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()

    def _read(self, deadline: float) -> bool:
        """Take one message of the running cell; True when the cell is at its end."""
        while True:
            try:
                message = self.client.get_iopub_msg(timeout=0.2)
            except queue.Empty:
                if not self.manager.is_alive():
                    raise KernelDiedError(self._result) from None
                if time.monotonic() > deadline:
                    raise TimeoutError(self._result.text) from None
                continue
            if message["parent_header"].get("msg_id") == self._busy:
                return self._take(message["msg_type"], message["content"])

    def _take(self, kind: str, content: dict[str, Any]) -> bool:
        outputs = self._result.outputs
        if self._clear and kind in {"stream", "display_data", "execute_result", "error"}:
            self._clear = False
            outputs.clear()
        if kind == "status":
            return bool(content["execution_state"] == "idle")
        if kind == "stream":
            outputs.append({"type": kind, **content})
        elif kind == "clear_output":
            if content["wait"]:
                self._clear = True
            else:
                outputs.clear()
        elif kind in {"display_data", "execute_result"}:
            shown = {"type": kind, **content}
            outputs.append(shown)
            if named := content.get("transient", {}).get("display_id"):
                self._ids[named] = shown
        elif kind == "update_display_data":
            if (shown_before := self._ids.get(content["transient"]["display_id"])) is not None:
                shown_before["data"] = content["data"]
        elif kind == "error":
            outputs.append({"type": kind, **content})
        elif kind in {"comm_open", "comm_msg"}:
            data = content.get("data", {})
            told = data.get("state", {}).get("state") or data.get("content", {}).get("news") or {}
            known = {row["key of it"]: row for row in self._rows} | {
                key: row | {"key of it": key} for key, row in told.get("rows", {}).items()
            }
            self._rows = [known[key] for key in told.get("order", known) if key in known]
        return False

    def _reply(self, deadline: float) -> dict[str, Any]:
        while True:
            message = self.client.get_shell_msg(timeout=max(0.1, deadline - time.monotonic()))
            if message["parent_header"].get("msg_id") == self._busy:
                content: dict[str, Any] = message["content"]
                return content


@contextmanager
def kernel(
    folder: Path, env: dict[str, str] | None = None, notebook: Path | None = None
) -> Iterator[Kernel]:
    """Yield a kernel that is gone afterwards."""
    running = Kernel(folder, env, notebook)
    try:
        yield running
    finally:
        running.close()
