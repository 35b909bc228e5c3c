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

    Of what is too long for a label, or the same for all of a map, there are digests: of each
    parameter that the label doesn't name, for nobody knows which of them its values are of.

    Args:
        label: ``name(short arguments)``.
        digests: ``parameter=digest;...``, as a checkpoint keeps it, in no order.
    """
    shown = [one for one in _apart(label.partition("(")[2].removesuffix(")")) if one != "..."]
    named = {one.partition("=")[0] for one in shown if _NAMED.match(one)}
    others = [one.split("=") for one in digests.split(";") if one.partition("=")[0] not in named]
    if len([one for one in others if len(one) > 1]) == len(shown) - len(named):
        return "\n".join(shown)
    lines = [f"{one[0]}: digest {one[1][:_DIGITS]}" for one in others if len(one) > 1]
    return "\n".join(shown + lines)


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
