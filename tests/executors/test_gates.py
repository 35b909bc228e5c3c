"""What a waiting thread is woken through."""

import _thread
import signal
import threading

import pytest

from nbdurable.executors.gates import Gate

PATIENCE = 60


@pytest.fixture(autouse=True)
def interruptible():
    """Set Python's own handler of SIGINT, wherever the tests were started from."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_signal_that_does_not_end_the_wait_itself():
    """One that arrives as the wait begins is noted only: the system call goes on without it."""
    gate = Gate()
    threading.Timer(0.2, _thread.interrupt_main).start()  # notes it, and interrupts no call
    unheard = threading.Timer(PATIENCE, gate.open)
    unheard.start()
    with pytest.raises(KeyboardInterrupt):
        gate.wait()
    unheard.cancel()


def test_opened_before_and_while_it_waits():
    """A gate lets one through for each opening, in any thread."""
    gate = Gate()
    gate.open()
    gate.open()
    assert gate.wait()
    assert not gate.wait(0.01)
    threading.Timer(0.25, gate.open).start()
    assert gate.wait()
    came = threading.Event()
    waiting = threading.Thread(target=lambda: gate.wait() and came.set())
    waiting.start()
    assert not came.wait(0.05)
    gate.open()
    waiting.join(PATIENCE)
    assert came.is_set()
