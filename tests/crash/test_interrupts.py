"""A storm of real SIGINTs: whatever the main thread is interrupted in, nobody is left waiting."""

import subprocess
import sys
import textwrap

STORM = """
    import faulthandler, os, random, signal, sys, threading, time
    from nbdurable import go, select, step, workflow

    faulthandler.dump_traceback_later(100, exit=True)
    store, until = sys.argv[1], time.monotonic() + float(sys.argv[2])
    ready = threading.Event()  # the main thread is where an interrupt is caught

    def going():
        few = len(handles) <= 100 or interrupts <= 100
        return few and time.monotonic() < until

    def storm():
        while going():
            ready.wait()
            ready.clear()
            threading.Event().wait(random.random() * 0.003)
            os.kill(os.getpid(), signal.SIGINT)

    @step
    def in_place(number):
        return number

    def beside(number):
        return number

    def tries():
        while going():
            number = len(handles)
            handles.append((number, go(beside, number)))
            if in_place(number) != number or select(handles[-1][1]).result() != number:
                os._exit(3)

    handles, interrupts = [], 0
    thread = threading.Thread(target=storm)
    with workflow("storm", store=store):
        thread.start()
        while thread.is_alive():
            try:
                ready.set()
                tries()
                thread.join()
            except KeyboardInterrupt:
                interrupts += 1
        wrong = [number for number, handle in handles if handle.result() != number]
    print(len(handles) > 100, interrupts > 100, wrong)
"""


def test_a_storm_of_interrupts_leaves_nobody_waiting(tmp_path):
    """Steps beside the interrupted cell code are committed and delivered all the same."""
    script = tmp_path / "storm.py"
    script.write_text(textwrap.dedent(STORM))
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "store.duckdb"), "80"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True True []\n", "")
