"""A process that forks itself for each execution of a program of `waits`.

What the program shows is written at once, so that it outlives the process.
"""

import asyncio
import os
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent.parent)]

from support.zygote import serve  # noqa: E402 - found by the path above

import nbdurable  # noqa: E402 - likewise, as all that follow
from nbdurable import step, testing  # noqa: E402
from nbdurable.api import open_stores  # noqa: E402
from programs import waits_mutants  # noqa: E402

MOST_SECONDS = 0.008
_draw = random.SystemRandom()  # another one in each process
_files = {}


def _write(kind, text):
    descriptor = os.open(_files[kind], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


def show(*what):
    """Show a line of the program."""
    _write("output", " ".join(map(str, what)))


@step(version=1)
async def awaited(number):
    """Take a while, and give what no other execution would."""
    await asyncio.sleep(_draw.uniform(0, MOST_SECONDS))
    _write("ran", f"awaited {number}")
    return _draw.randrange(10**6)


@step(version=1)
def called(number):
    """Take a while in a thread."""
    time.sleep(_draw.uniform(0, MOST_SECONDS))
    _write("ran", f"called {number}")
    return _draw.randrange(10**6)


@step(version=1)
async def roll():
    """Be the same call wherever it stands."""
    await asyncio.sleep(_draw.uniform(0, MOST_SECONDS))
    _write("ran", "roll")
    return _draw.randrange(10**6)


@step(version=1)
def roll_in_thread():
    """Be the same call in whatever thread."""
    _write("ran", "roll_in_thread")
    return _draw.randrange(10**6)


@step(version=1)
async def fails(number):
    """Fail after a while."""
    await asyncio.sleep(_draw.uniform(0, MOST_SECONDS))
    _write("ran", f"fails {number}")
    raise ValueError(_draw.randrange(10**6))


async def play(program):
    """Do the operations of a program, one after the other."""
    for what, *rest in program:
        await OPERATIONS[what](*rest)


async def end(tasks):
    """Cancel tasks, and wait until they have ended: none shows anything later."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def do_step(number):
    """Await a step."""
    show("step", number, await awaited(number))


async def do_later(number, rest):
    """Start a step, and await it when something else has been done."""
    handle = awaited.go(number)
    await play(rest)
    show("later", number, await handle)


async def do_equal():
    """Await a call that other tasks make, too."""
    show("equal", await roll())


async def do_fails(number):
    """Catch the error of a step."""
    try:
        await fails(number)
    except ValueError as error:
        show("failed", number, error)


async def do_wait_for(number, seconds):
    """Wait for a step as long as asyncio lets."""
    try:
        show("in time", number, await asyncio.wait_for(awaited(number), seconds))
    except TimeoutError:
        show("too late", number)


async def do_first(numbers, seconds):
    """Wait for the first, then with a timeout, then for all."""
    tasks = {asyncio.ensure_future(awaited(number)): number for number in numbers}
    done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    show("first", [(tasks[one], one.result()) for one in done])
    if left:
        done, left = await asyncio.wait(left, timeout=seconds)
        show("then", [(tasks[one], one.result()) for one in done], len(left))
    done, left = await asyncio.wait(tasks)
    show("all", [one.result() for one in done])


async def do_ended(numbers):
    """Take steps one after the other as they end."""
    for one in asyncio.as_completed([awaited(number) for number in numbers]):
        show("ended", await one)


async def do_queue(producers, seconds):
    """Read a queue that several tasks fill."""
    queue = asyncio.Queue()

    async def fill(numbers):
        for number in numbers:
            await queue.put((number, await awaited(number)))

    tasks = [asyncio.create_task(fill(numbers)) for numbers in producers]
    left = sum(map(len, producers))
    try:
        while left:
            try:
                show("got", await asyncio.wait_for(queue.get(), seconds))
                left -= 1
            except TimeoutError:
                show("empty")
                seconds *= 4
    finally:
        await end(tasks)


async def do_threads(how, numbers):
    """Call steps in threads, in one of many ways."""
    loop = asyncio.get_running_loop()
    if how == "executor":
        found = await asyncio.gather(*(loop.run_in_executor(None, called, n) for n in numbers))
    elif how == "to_thread":
        found = await asyncio.gather(*(asyncio.to_thread(called, n) for n in numbers))
    elif how == "thread":
        found = dict.fromkeys(numbers)
        threads = [
            threading.Thread(target=lambda n=n: found.update({n: called(n)})) for n in numbers
        ]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    else:
        with ThreadPoolExecutor(3) as pool:
            if how == "map":
                found = list(pool.map(called, numbers))
            elif how == "inner":
                found = list(pool.map(lambda n: (n, called(n)), numbers))
            elif how == "equal":
                found = list(pool.map(lambda _: roll_in_thread(), numbers))
            else:
                found = [one.result() for one in [pool.submit(called, n) for n in numbers]]
    show("threads", how, found)


async def do_gather(parts):
    """Do several things beside each other."""
    await asyncio.gather(*map(play, parts))


async def do_group(parts):
    """Do several things beside each other, in a group of tasks."""
    async with asyncio.TaskGroup() as group:
        for part in parts:
            group.create_task(play(part))


async def do_timeout(seconds, part):
    """Do something as long as asyncio lets."""
    try:
        async with asyncio.timeout(seconds):
            await play(part)
        show("was in time")
    except TimeoutError:
        show("was too late")


async def do_cancel(number, part):
    """Do something until a step has ended."""
    task = asyncio.create_task(play(part))
    try:
        show("to cancel", await awaited(number))
    finally:
        await end([task])
    show("cancelled", task.cancelled())


OPERATIONS = {name.removeprefix("do_"): one for name, one in globals().items() if name[:3] == "do_"}


async def cell(program, workflow):
    """Do a program in a run."""
    async with workflow:
        await play(program)
        show("the end")


def execute(request):
    """Run a program once and give how it ended."""
    _files.update(output=request["output"], ran=request["ran"])
    if request["mutant"]:
        getattr(waits_mutants, request["mutant"])()
    if request["kill"]:
        testing.kill_at(*request["kill"])
    workflow = nbdurable.workflow("program", store=request["store"])
    error = None
    try:
        asyncio.run(asyncio.wait_for(cell(request["program"], workflow), 20))
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    open_stores.close_stores()
    return {"error": error, "notes": list(workflow.notes)}


if __name__ == "__main__":
    serve(execute)
