"""What workers on this machine tell while they run: a socket in a folder of one's own.

Invariant: a message is JSON, and names the call that it is about; one about a call that
nobody waits for any more is dropped. Only who has the key, which travels with the call,
can connect.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import tempfile
import threading
from multiprocessing.connection import Client, Connection, Listener
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .remote import Call, Message

_CONNECTIONS = 64  # that may wait to be accepted


class Hearing:
    """The kernel's end: started when it is first needed; a fork forgets it."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew, in a forked child."""
        self._lock = threading.Lock()
        self._folder = ""
        self._key = b""
        self._calls: dict[str, Call] = {}
        self._listener: Listener | None = None

    def address(self) -> tuple[str, bytes]:
        """Return where workers connect, and with which key."""
        with self._lock:
            if not self._folder:
                folder = tempfile.mkdtemp(prefix="nbdurable-")
                self._key = secrets.token_bytes(32)
                path = os.path.join(folder, "workers")  # noqa: PTH118
                self._listener = listener = Listener(
                    path, "AF_UNIX", _CONNECTIONS, authkey=self._key
                )
                threading.Thread(
                    target=self._accept, args=(listener,), name="nbdurable-hearing", daemon=True
                ).start()
                self._folder = folder
            return os.path.join(self._folder, "workers"), self._key  # noqa: PTH118

    def close(self) -> None:
        """Remove the folder: the process ends."""
        with self._lock:
            folder, self._folder = self._folder, ""
            listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)

    def expect(self, call: Call) -> None:
        """Hand what is told of a call to it, until `over`."""
        self._calls[call.token] = call

    def over(self, call: Call) -> None:
        """Hand it nothing more."""
        self._calls.pop(call.token, None)

    def told(self, message: Message) -> None:
        """Hand on what a worker has told."""
        call = self._calls.get(str(message.get("token")))
        if call is None:
            return
        if "began" in message:
            call.workers.append(str(message["began"]))
        call.heard(message)

    def _accept(self, listener: Listener) -> None:
        while True:
            try:
                connection = listener.accept()
            except OSError:
                if self._listener is not listener:
                    return  # it was closed
                continue
            except Exception:  # noqa: BLE001, S112 - somebody without the key, who is turned away
                continue
            threading.Thread(
                target=self._hear, args=(connection,), name="nbdurable-hearing", daemon=True
            ).start()

    def _hear(self, connection: Connection) -> None:
        with contextlib.suppress(EOFError, OSError), connection:
            while True:
                self.told(json.loads(connection.recv_bytes()))


hearing = Hearing()
os.register_at_fork(after_in_child=hearing.forget)


class Telling:
    """A worker's end: one connection for each kernel; who is gone is told nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections: dict[str, Connection | None] = {}

    def teller(self, address: str, key: bytes) -> Callable[[Message], bool]:
        """Return what tells the kernel a message; it returns whether that was sent."""

        def tell(message: Message) -> bool:
            with self._lock:
                connection = self._connections.get(address)
                try:
                    if address not in self._connections:
                        connection = self._connections[address] = Client(
                            address, "AF_UNIX", authkey=key
                        )
                    if connection is None:
                        return False
                    connection.send_bytes(json.dumps(message).encode("ascii"))
                except (OSError, EOFError, ValueError):
                    self._connections[address] = None
                    return False
                return True

        return tell


telling = Telling()
