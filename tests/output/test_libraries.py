"""pyplot's figures and rich's console in a step: its own; outside of one: as ever.

Each program runs in a process of its own, which has loaded none of the libraries.
"""

import json
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.timeout(60)

BEGIN = """
import contextvars, json, sys, threading
from nbdurable import isolation as libraries
from nbdurable.output import capture as output
from nbdurable.output import streams
from nbdurable.isolation import Apart

def say(*values):
    print(json.dumps(values))
"""


@pytest.fixture
def run(tmp_path_factory):
    """Run a program and give what it says."""
    folder = tmp_path_factory.getbasetemp()
    settings = {"MPLCONFIGDIR": str(folder / "matplotlib"), "IPYTHONDIR": str(folder / "ipython")}

    def run(program, backend="agg"):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", BEGIN + textwrap.dedent(program)],
            capture_output=True,
            text=True,
            check=False,
            env={"MPLBACKEND": backend, **settings},
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_nothing_is_imported(run):
    """Fitting, and a block apart, import no library."""
    assert run("""
        libraries.fit()
        with Apart(show=True):
            pass
        libraries.unfit()
        say([name for name in ("matplotlib", "rich", "IPython") if name in sys.modules])
    """) == [[]]


@pytest.mark.parametrize("first", ["before", "in the block"])
def test_a_blocks_figures_are_its_own(run, first):
    """A block sees no figure but its own, and leaves none, whenever pyplot was imported."""
    early = "import matplotlib.pyplot as plt; plt.figure()" if first == "before" else ""
    assert run(f"""
        {early}
        libraries.fit()
        with Apart():
            import matplotlib.pyplot as plt
            inside = plt.get_fignums()
            plt.figure()
            plt.figure("named")
            numbers = plt.get_fignums(), plt.get_figlabels(), plt.gcf().number
            plt.close(2)
            closed = plt.get_fignums(), plt.fignum_exists(1), plt.fignum_exists(2)
        say(inside, numbers, closed, plt.get_fignums())
    """) == [
        [],
        [[1, 2], ["", "named"], 2],
        [[1], True, False],
        [1] if first == "before" else [],
    ]


def test_outside_of_a_block_pyplot_is_as_ever(run):
    """The current figure, closing one, closing all: as without this."""
    assert run("""
        import matplotlib.pyplot as plt
        libraries.fit()
        first, second = plt.figure(), plt.figure()
        current = plt.gcf() is second
        plt.figure(1)
        again = plt.gcf() is first
        with Apart():
            plt.figure(7)
        plt.close(first)
        left = plt.get_fignums()
        plt.close("all")
        say(current, again, left, plt.get_fignums())
    """) == [True, True, [2], []]


def test_two_threads_draw_at_once(run):
    """Two blocks in two threads take turns at drawing, each into its own current figure."""
    assert run("""
        libraries.fit()
        turns = [threading.Semaphore(1), threading.Semaphore(0)]
        drawn = {}

        def draw(mine):
            with Apart():
                import matplotlib.pyplot as plt
                for number in range(3):
                    turns[mine].acquire()
                    plt.plot([mine], [number])
                    turns[1 - mine].release()
                lines = plt.gca().get_lines()
                drawn[mine] = [float(x) for line in lines for x in line.get_xdata()]

        threads = [threading.Thread(target=draw, args=(mine,)) for mine in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        say(drawn)
    """) == [{"0": [0.0] * 3, "1": [1.0] * 3}]


def test_a_decoded_figure_is_not_pyplots(run):
    """A figure that is encoded while it is open comes back as a figure that pyplot has not."""
    assert run("""
        import pickle
        import matplotlib.pyplot as plt
        from nbdurable.codec import outcomes, values
        libraries.fit()
        figure = plt.figure()
        plt.plot([1, 2])
        plain = pickle.dumps(figure)
        restored = [outcomes.settle_value(figure)[1], values.decode(plain)]
        pickle.loads(plain)
        registered = plt.get_fignums()  # plain pickle has added the second one
        say(registered, [len(one.axes[0].lines) for one in restored])
    """) == [[1, 2], [1, 1]]


def test_figures_left_open_are_shown_by_the_inline_backend(run):
    """What a body leaves open is shown at its end, also if it fails, and not if it is stopped."""
    program = """
        import matplotlib.pyplot as plt
        from IPython.core.interactiveshell import InteractiveShell
        InteractiveShell.enable_gui = lambda *_: None
        shell = InteractiveShell.instance()
        shell.run_line_magic("matplotlib", "inline")
        shown = []
        shell.display_pub.publish = lambda data, **_: shown.append("image/png" in data)
        libraries.fit()
        counts = []
        for error in (None, ValueError, KeyboardInterrupt):
            try:
                with Apart(show=True):
                    plt.figure().add_subplot()
                    plt.figure().add_subplot()
                    if error is not None:
                        raise error
            except BaseException:
                pass
            counts.append(len(shown))
        with Apart():
            plt.figure()
        plt.ioff()
        with Apart(show=True):
            plt.figure()
        say(counts, len(shown), all(shown), plt.get_fignums())
    """
    assert run(program, "module://matplotlib_inline.backend_inline") == [[2, 4, 4], 4, True, []]


def test_a_figure_that_cannot_be_drawn_fails_nothing(run):
    """Showing what was left open may fail: it is told, and the body's result stands."""
    program = """
        import matplotlib.pyplot as plt
        from IPython.core.interactiveshell import InteractiveShell
        InteractiveShell.enable_gui = lambda *_: None
        shell = InteractiveShell.instance()
        shell.run_line_magic("matplotlib", "inline")
        libraries.fit()
        def publish(data, **_):
            raise OSError("no front end")
        shell.display_pub.publish = publish
        capture = output.Capture()
        with streams.Capturing(capture):
            plt.figure()
        (message,) = capture.finished()
        say(message.kind, message.data.splitlines()[-1], plt.get_fignums())
    """
    backend = "module://matplotlib_inline.backend_inline"
    assert run(program, backend) == ["stderr", "OSError: no front end", []]


@pytest.mark.parametrize("first", ["before", "in the block"])
def test_a_live_display_of_rich_in_a_block(run, first):
    """It replaces no stream and makes no widget; its last state is displayed as it ends."""
    early = "import rich.console" if first == "before" else ""
    assert run(f"""
        {early}
        libraries.fit()
        with Apart():
            import rich.jupyter
            from rich.console import Console
            from rich.live import Live
            shown = []
            rich.jupyter.display = lambda segments, text: shown.append(text)
            console, stream = Console(force_jupyter=True), sys.stdout
            with Live("begin", console=console, auto_refresh=False) as live:
                replaced = sys.stdout is not stream
                console.print("between")
                live.update("end", refresh=True)
        say(replaced, live.ipy_widget, shown, console.is_jupyter)
    """) == [False, None, ["between\n", "end"], True]


@pytest.mark.parametrize("first", ["before", "in the block"])
def test_live_displays_of_two_blocks(run, first):
    """They share rich's own console, and neither draws the other's, nor prints with it."""
    early = "import rich.console" if first == "before" else ""
    assert run(f"""
        {early}
        libraries.fit()
        turns = [threading.Semaphore(1), threading.Semaphore(0)]
        captures = [output.Capture(), output.Capture()]

        def draw(mine):
            with streams.Capturing(captures[mine]):
                import rich
                from rich.live import Live
                turns[mine].acquire()
                with Live(f"live {{mine}}") as live:
                    turns[1 - mine].release()
                    turns[mine].acquire()
                    rich.print(f"printed {{mine}}")
                    live.update(f"ended {{mine}}")
                turns[1 - mine].release()

        threads = [threading.Thread(target=draw, args=(mine,)) for mine in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        import rich
        rich.print("outside", file=sys.stderr)
        console = rich.get_console()
        texts = [[one.data for one in capture.finished()] for capture in captures]
        say(texts, console._live_stack, console._render_hooks)
    """) == [[["printed 0\nended 0"], ["printed 1\nended 1"]], [], []]


def test_a_live_display_goes_on_around_a_block(run):
    """What is live outside of a block is so again after it."""
    assert run("""
        libraries.fit()
        import io
        from rich.console import Console
        from rich.live import Live
        console = Console(file=io.StringIO())
        with Live("outer", console=console, auto_refresh=False):
            with Apart():
                inside = len(console._live_stack), len(console._render_hooks)
                with Live("inner", console=console, auto_refresh=False):
                    pass
            outside = len(console._live_stack), len(console._render_hooks)
        say(inside, outside, console.file.getvalue())
    """) == [[0, 0], [1, 1], "innerouter"]


def test_outside_of_a_block_rich_is_as_ever(run):
    """A console in Jupyter says so, one that is not does not, and a live display is its own."""
    assert run("""
        libraries.fit()
        from rich.console import Console
        from rich.live import Live
        console, stream = Console(force_jupyter=True), sys.stdout
        with Live(console=console, auto_refresh=False):
            replaced = sys.stdout is not stream
        say(replaced, console.is_jupyter, Console(force_jupyter=False).is_jupyter)
    """) == [True, True, False]


@pytest.mark.parametrize("first", ["before", "in the block"])
def test_a_blocks_bars_stand_alone(run, first):
    """A bar of tqdm's stands below those of its own block, and below nobody else's."""
    early = "from tqdm import tqdm; outer = tqdm(total=1)" if first == "before" else ""
    assert run(f"""
        {early}
        libraries.fit()
        with Apart():
            from tqdm import tqdm
            bars = [tqdm(total=1), tqdm(total=1)]
            inside = [abs(bar.pos) for bar in bars]
            for bar in bars:
                bar.close()
        again = tqdm(total=1)
        say(inside, abs(again.pos))
        again.close()
    """) == [[0, 1], 1 if first == "before" else 0]


def test_an_output_widget_in_a_block_diverts_nothing(run):
    """An output widget in a step would divert the whole cell's output; outside it still does."""
    assert run("""
        libraries.fit()
        from ipywidgets import Output
        entered = []
        plain = Output._flush
        Output._flush = lambda self: entered.append("flushed")
        with Apart(), Output():
            inside = list(entered)
        with Output():
            pass
        say(inside, len(entered))
    """) == [[], 2]


def test_imports_are_as_before_when_nobody_fits(run):
    """The import system is left alone after the last user; modules look as they always do."""
    assert run("""
        before = list(sys.meta_path)
        libraries.fit()
        libraries.fit()
        import rich.console
        libraries.unfit()
        between = len(sys.meta_path) - len(before)
        libraries.unfit()
        spec = rich.console.__spec__
        say(between, sys.meta_path == before, "exec_module" in vars(spec.loader))
    """) == [1, True, False]


def test_a_module_that_is_not_there_is_missed_as_ever(run):
    """Where a library is not installed, importing it fails as usual."""
    assert run("""
        libraries.fit()
        sys.path[:] = []
        try:
            import rich.console
        except ModuleNotFoundError as error:
            say(error.name)
    """) == ["rich"]
