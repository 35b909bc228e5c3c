"""What is told of a step's arguments when it holds them no more.

Invariant: made of what is kept anyway, a label and the digests of the inputs.
"""

from __future__ import annotations

import re
from typing import Final

_NAMED: Final = re.compile(r"[^\W\d]\w*=")
_DIGITS: Final = 12


def told_arguments(label: str, digests: str) -> str:
    """Return a step's arguments, one a line, with their values as far as its label shows them.

    Of what is too long for a label, or the same for all of a map, there is a digest.

    Args:
        label: ``name(short arguments)``.
        digests: ``parameter=digest;...``, as a checkpoint keeps it.
    """
    shown = [one for one in _apart(label.partition("(")[2].removesuffix(")")) if one != "..."]
    lines = []
    for name, _, digest in (one.partition("=") for one in digests.split(";") if one):
        said = next((one for one in shown if one.startswith(f"{name}=")), "")
        if said:
            shown.remove(said)
        elif shown and not _NAMED.match(shown[0]):
            said = f"{name}={shown.pop(0)}"
        untold = f"{name}=***" if digest == "masked" else f"{name}: digest {digest[:_DIGITS]}"
        lines.append(said or untold)
    return "\n".join(lines + shown)


def _apart(text: str) -> list[str]:
    """Take a label's arguments apart, at the commas that stand in nothing else."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if letter in "'\"" and quote in {"", letter}:
            quote = "" if quote else letter
        elif not quote:
            depth += (letter in "([{<") - (letter in ")]}>")
        if letter == "," and not quote and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]
