"""Operations by hand, for programs that were found and are kept."""


def step(name, *, body=(), takes=(), **flags):
    """Return a step."""
    return {
        "name": name,
        "fails": False,
        "outage": 0,
        "local": False,
        "redirects": False,
        "stumbles": 0,
        "retries": 0,
        "prints": False,
        "asynchronous": False,
        "takes": list(takes),
        "shape": "alone",
        "body": list(body),
        **flags,
    }


def go(identity, *takes, body=(), name=None, **flags):
    """Start a step."""
    made = step(name or f"s{identity}", body=body, takes=takes, **flags)
    return {"do": "go", "id": identity, "step": made}


def call(identity, *, body=(), catch=True, **flags):
    """Call a step in place."""
    return {
        "do": "call",
        "id": identity,
        "step": step(f"s{identity}", body=body, **flags),
        "catch": catch,
    }


def after(identity, seconds):
    """Make a timer."""
    return {"do": "after", "id": identity, "seconds": seconds}


def select(identity, *of, do="select", success=False):
    """Make a select, or a race."""
    return {"do": do, "id": identity, "of": list(of), "success": success}


def race(identity, *of, success=False):
    """Make a race."""
    return select(identity, *of, do="race", success=success)


def gather(identity, *of, exceptions=False):
    """Make a gather."""
    return {
        "do": "gather",
        "id": identity,
        "of": list(of),
        "exceptions": exceptions,
        "keyed": False,
    }


def ask(of, how="result", *, seconds=0, catch=True, identity=None):
    """Ask a handle."""
    return {
        "do": "ask",
        "id": identity or of,
        "of": of,
        "how": how,
        "seconds": seconds,
        "catch": catch,
    }


def each(identity, *of, most=None):
    """Loop over as_completed."""
    return {"do": "each", "id": identity, "of": list(of), "most": most or len(of)}


def cancel(of):
    """Cancel a handle."""
    return {"do": "cancel", "of": of}
