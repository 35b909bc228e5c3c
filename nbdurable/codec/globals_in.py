"""The names that a pickle would look up, read without unpickling anything.

Invariant: nothing is imported, called or built; a pickle that makes a name while it is
unpickled is said to do so, whatever it would come to.
"""

from __future__ import annotations

import pickletools
from typing import Any, Final

COMPUTED: Final = "a name that is made while it is unpickled"
UNREADABLE: Final = "a pickle that can't be read to its end"
_DEEPEST: Final = 8


def globals_in(data: bytes, depth: int = 0) -> set[str]:
    """Return ``module.name`` of each global of a pickle, and of the pickles inside it."""
    reader = _Reader()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            reader.take(opcode, argument)
            if isinstance(argument, bytes | bytearray) and argument[:1] == b"\x80":
                nested = globals_in(bytes(argument), depth + 1) if depth < _DEEPEST else {COMPUTED}
                reader.found |= nested - {UNREADABLE}
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, UnicodeError):
        reader.found.add(UNREADABLE)
    return reader.found


class _Reader:
    """A pickle machine that knows texts, and None of all else."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def take(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Do to the stack what an opcode does, and note the global that it looks up."""
        stack, marks, memo = self._stack, self._marks, self._memo
        top = stack[-1] if stack else None
        pushed: list[Any] = [None] * len(opcode.stack_after)
        match opcode.name:
            case "MARK":
                marks.append(len(stack))
                return
            case "GLOBAL" | "INST":
                self.found.add(str(argument).replace(" ", "."))
            case "STACK_GLOBAL":
                module, name = stack[-2:]
                known = isinstance(module, str) and isinstance(name, str)
                self.found.add(f"{module}.{name}" if known else COMPUTED)
            case "EXT1" | "EXT2" | "EXT4":
                self.found.add(COMPUTED)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[int(argument)] = top
                return
            case "MEMOIZE":
                memo[len(memo)] = top
                return
            case "GET" | "BINGET" | "LONG_BINGET":
                pushed = [memo[int(argument)]]
            case "DUP":
                stack.append(top)
                return
            case "POP" if marks and marks[-1] == len(stack):
                marks.pop()
                return
            case _ if isinstance(argument, str) and pushed:
                pushed = [argument]
        before = opcode.stack_before
        if pickletools.markobject in before:
            del stack[marks.pop() :]
            before = before[: before.index(pickletools.markobject)]
        if before:
            del stack[-len(before) :]
        stack += pushed
