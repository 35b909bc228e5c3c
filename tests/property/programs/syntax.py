"""What is in a program, and its text."""

BEGINNING = 1000.0
"""The time at which every program is first run, in seconds."""

CELL = 0
"""The fiber of the cell itself; a step's body is a fiber under the step's id."""


def walk(operations):
    """Yield every operation, those in blocks and bodies included."""
    for one in operations:
        yield one
        for block in blocks(one):
            yield from walk(block)


def blocks(operation):
    """Return the lists of operations inside of one."""
    found = [
        operation[part] for part in ("then", "otherwise", "body", "handler") if part in operation
    ]
    if "step" in operation:
        found.append(operation["step"]["body"])
    return found


def steps_of(program):
    """Return every step by the id of the operation that starts it."""
    found = {}
    for one in walk(program):
        if "step" in one:
            found.update(dict.fromkeys(one.get("items", [one["id"]]), one["step"]))
    return found


def words(program):
    """Return what the operations of a program do, and how."""
    found = set()
    for one in walk(program):
        found.add(one["do"])
        found.update(
            f"{one['do']} {part}" for part in ("success", "exceptions", "keyed") if one.get(part)
        )
        if one["do"] == "ask":
            found.add(f"ask {one['how']}" + (" timeout" if one["seconds"] else ""))
        found.update({"wraps"} if one.get("catch") == "wrap" else ())
        step = one.get("step")
        if step:
            flags = ("fails", "stumbles", "retries", "prints", "asynchronous", "takes", "body",
                     "outage", "local", "redirects")  # fmt: skip
            found.update(f"step {flag}" for flag in flags if step[flag])
    return found


def text_of(program, *, asynchronous=False):
    """Return a program as Python, for people."""
    lines = ["async def cell():" if asynchronous else "def cell():"]
    _write(program, lines, 1, asynchronous)
    return "\n".join(lines)


def _write(operations, lines, depth, asynchronous):
    pad = "    " * depth
    wait = "await " if asynchronous else ""
    if not operations:
        lines.append(f"{pad}pass")
    for one in operations:
        step = one.get("step")
        if step and step["body"]:
            prefix = "async " if step["asynchronous"] else ""
            lines.append(f"{pad}{prefix}def {step['name']}_{one['id']}(*received):")
            _write(step["body"], lines, depth + 1, step["asynchronous"])
        write = _WRITERS[one["do"]]
        for line in write(one, wait):
            lines.append(pad + line if isinstance(line, str) else "")
        for head, part in _PARTS.get(one["do"], ()):
            lines.append(pad + head.format(one.get("of")))
            _write(one[part], lines, depth + 1, asynchronous)


def _caught(one, line):
    if one["catch"] == "wrap":
        return [f"try: {line}", "except Exception as error: raise ValueError from error"]
    return [f"try: {line}", "except Exception: pass"] if one["catch"] else [line]


def _step(one):
    step = one["step"]
    flags = [
        word
        for word, here in (
            ("async", step["asynchronous"]),
            ("fails", step["fails"]),
            (f"stumbles {step['stumbles']} times", step["stumbles"]),
            (f"retries={step['retries']}", step["retries"]),
            ("prints", step["prints"]),
            (f"outage of {step['outage']}", step["outage"]),
            ("local class", step["local"]),
            ("redirects", step["redirects"]),
        )
        if here
    ]
    takes = [f"h{handle}" for handle in step["takes"]]
    received = {"alone": ", ".join(takes), "list": f"[{', '.join(takes)}]"}.get(
        step["shape"], "{" + ", ".join(f"'k{at}': {one}" for at, one in enumerate(takes)) + "}"
    )
    name = f"{step['name']}_{one['id']}" if step["body"] else step["name"]
    return f"{name}{', ' + received if takes else ''})", f"  # {', '.join(flags)}" if flags else ""


def _go(one, _):
    call, flags = _step(one)
    return [f"h{one['id']} = go({call}{flags}"]


def _map(one, _):
    call, flags = _step(one)
    exceptions = ", return_exceptions=True" if one["exceptions"] else ""
    return [f"h{one['id']} = step({call}.map({one['items']}{exceptions}){flags}"]


def _call(one, wait):
    call, flags = _step(one)
    return _caught(one, f"{wait}step({call}(){flags}")


def _handles(one):
    return ", ".join(f"h{handle}" for handle in one["of"])


def _first(one, _):
    success = ", success=True" if one["success"] else ""
    return [f"h{one['id']} = {one['do']}({_handles(one)}{success})"]


def _gather(one, _):
    exceptions = ", return_exceptions=True" if one["exceptions"] else ""
    handles = _handles(one)
    if one["keyed"]:
        handles = (
            "{" + ", ".join(f"'k{at}': h{handle}" for at, handle in enumerate(one["of"])) + "}"
        )
    return [f"h{one['id']} = gather({handles}{exceptions})"]


def _ask(one, wait):
    how, handle = one["how"], f"h{one['of']}"
    if how == "result":
        line = f"{wait}{handle}" if wait else f"{handle}.result({one['seconds'] or ''})"
    elif how == "outcome":
        line = f"{handle}.outcome()"
    else:
        line = f"{handle}.{how}"
    return _caught(one, line)


_WRITERS = {
    "go": _go,
    "call": _call,
    "map": _map,
    "after": lambda one, _: [f"h{one['id']} = after({one['seconds']})"],
    "sleep": lambda one, wait: [f"{wait}sleep({'until=' * one['until']}{one['seconds']})"],
    "select": _first,
    "race": _first,
    "gather": _gather,
    "ask": _ask,
    "each": lambda one, wait: [
        f"{'async ' * bool(wait)}for h in as_completed([{_handles(one)}]): ...  # {one['most']}"
    ],
    "cancel": lambda one, _: [f"h{one['of']}.cancel()"],
    "print": lambda one, _: [f"print({one['text']!r})"],
    "if": lambda one, _: [],
    "try": lambda one, _: [],
}
_PARTS = {
    "if": (("if h{}.outcome().ok:", "then"), ("else:", "otherwise")),
    "try": (("try:", "body"), ("except Exception:", "handler")),
}
