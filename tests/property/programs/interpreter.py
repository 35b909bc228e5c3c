"""What the operations of a program do.

One text for both sides, so that both branch, handle errors and print alike; what a
handle is, and what waiting for it gives, each side says for itself: the engine's
`Fiber` calls nbdurable, the oracle's plays it. Everything that may wait is awaited;
the engine's sync fibers never really suspend.

A fiber is one flow of control: the cell, or one attempt of a step's body.
"""

import zlib


async def run(operations, fiber):
    """Do `operations` one after the other."""
    for one in operations:
        fiber.begin(one)
        await _DOERS[one["do"]](one, fiber)


async def run_cell(program, fiber):
    """Be the cell."""
    await run(program, fiber)
    fiber.begin({})


async def act(identity, step, received, fiber):
    """Be the body of a step: its operations, its print, its gate, its end.

    Every ending waits at the gate, an error's too, so that no outcome comes by itself.
    """
    fiber.effect()
    try:
        await run(step["body"], fiber)
    except Exception as error:
        fiber.still_runs(error)
        await fiber.gate()
        raise
    if step["prints"]:
        fiber.print(f"step {identity}")
    redirected = [fiber.redirected(f"redirected {identity}")] if step["redirects"] else []
    if await fiber.gate():
        raise error_class(step["local"])("fails", identity)
    return [identity, zlib.crc32(text_of_value(list(received)).encode()), *redirected]


def error_class(local):
    """Return a class of errors; a `local` one is made in this function, anew each time."""

    class Local(ValueError):
        pass

    return Local if local else ValueError


def shaped(step, handles):
    """Return a step's arguments, the handles among them."""
    if not step["takes"]:
        return ()
    if step["shape"] == "alone":
        return tuple(handles)
    if step["shape"] == "list":
        return (list(handles),)
    return ({f"k{at}": handle for at, handle in enumerate(handles)},)


def text_of_error(error):
    """Return what must be equal about an error: its type, and what it says in all processes."""
    if isinstance(error, BaseExceptionGroup):
        return f"{error.message}: {[text_of_error(one) for one in error.exceptions]}"
    if isinstance(error, ValueError):
        return repr(error)
    return type(error).__name__


def text_of_value(value):
    """Return a result as text, errors in it included."""
    if isinstance(value, BaseException):
        return text_of_error(value)
    if isinstance(value, list):
        return f"[{', '.join(map(text_of_value, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {text_of_value(one)}" for key, one in value.items()) + "}"
    return repr(value)


async def _observed(one, fiber, seeing):
    """Note what `seeing` gives or raises; an error goes on unless it is to be caught."""
    try:
        seen = await seeing
    except Exception as error:
        fiber.still_runs(error)
        fiber.note(one, f"raised {text_of_error(error)}")
        if one["catch"] == "wrap":
            raise error_class(one["id"] % 2)("wraps", one["id"]) from error
        if not one["catch"]:
            raise
    else:
        fiber.note(one, seen if isinstance(seen, str) else text_of_value(seen))


async def _go(one, fiber):
    fiber.handles[one["id"]] = fiber.go(one)


async def _call(one, fiber):
    await _observed(one, fiber, fiber.call(one))


async def _map(one, fiber):
    fiber.handles[one["id"]] = fiber.map(one)


async def _after(one, fiber):
    fiber.handles[one["id"]] = fiber.after(one)


async def _sleep(one, fiber):
    await fiber.sleep(one)


async def _combine(one, fiber):
    branches = [fiber.handles[handle] for handle in one["of"]]
    fiber.handles[one["id"]] = fiber.combine(one, branches)


async def _ask(one, fiber):
    await _observed(one, fiber, fiber.ask(one, fiber.handles[one["of"]]))


async def _each(one, fiber):
    order = [fiber.handles[handle] for handle in one["of"]]
    left = one["most"]
    loop = fiber.each(one, order)
    async for winner in loop:
        fiber.note(one, f"came {winner}")
        left -= 1
        if not left:
            break
        fiber.begin(one)
    await loop.aclose()


async def _cancel(one, fiber):
    fiber.cancel(one, fiber.handles[one["of"]])


async def _print(one, fiber):
    fiber.print(one["text"])


async def _if(one, fiber):
    fine = await fiber.fine(fiber.handles[one["of"]])
    await run(one["then"] if fine else one["otherwise"], fiber)


async def _try(one, fiber):
    try:
        await run(one["body"], fiber)
    except Exception as error:
        fiber.still_runs(error)
        await run(one["handler"], fiber)


_DOERS = {
    "go": _go,
    "call": _call,
    "map": _map,
    "after": _after,
    "sleep": _sleep,
    "select": _combine,
    "race": _combine,
    "gather": _combine,
    "ask": _ask,
    "each": _each,
    "cancel": _cancel,
    "print": _print,
    "if": _if,
    "try": _try,
}
