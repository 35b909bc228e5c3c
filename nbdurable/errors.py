"""The exception tree: every error that nbdurable raises on its own account.

Invariant: standard library only, and every exception survives a pickle round
trip (fields go to ``super().__init__`` and the sentence is made in ``__str__``),
because an error can be an outcome and outcomes are stored.
"""

from __future__ import annotations


class DurableError(Exception):
    """Base of every error that nbdurable raises."""

    def __str__(self) -> str:
        """Return the sentence; a plain error carries it as its first field."""
        return str(self.args[0]) if self.args else type(self).__name__


class UsageError(DurableError):
    """The call can't mean anything; nothing was recorded and nothing was lost."""


class NotInRunError(UsageError):
    """A durable operation was used where no run is active."""

    def __init__(self, operation: str, reason: str = "", cure: str = "") -> None:
        super().__init__(operation, reason, *([cure] if cure else ()))

    def __str__(self) -> str:
        """Say which operation, and the two ways to be in a run, or another way out."""
        operation, reason, *rest = self.args
        why = reason or "it is used outside a run"
        cure = (
            rest[0]
            if rest and rest[0]
            else (
                "put it in a cell that starts with `%%durable NAME`, "
                "or inside `with nbdurable.workflow(NAME):`"
            )
        )
        return f"{operation}: {why}; {cure}"


class StepError(DurableError):
    """A step ended badly for a reason of nbdurable's, not of its body's."""


class StepTimeoutError(StepError, TimeoutError):
    """An attempt took longer than the step's ``timeout``."""

    def __init__(self, step: str, seconds: float) -> None:
        super().__init__(step, seconds)

    def __str__(self) -> str:
        """Name the step and its limit."""
        step, seconds = self.args
        return f"{step}: an attempt took longer than its timeout of {seconds:g} s"


class StepCancelledError(StepError):
    """The step was cancelled; that is its outcome."""

    def __init__(self, step: str, reason: str = "it was cancelled") -> None:
        super().__init__(step, reason)

    def __str__(self) -> str:
        """Name the step and who cancelled it."""
        step, reason = self.args
        return f"{step}: {reason}"


class InputMovedError(StepError):
    """An input changed between ``go`` and the start of the body."""

    def __init__(
        self,
        step: str,
        inputs: tuple[str, ...],
        how: str = "changed",
        ignorable: tuple[str, ...] = (),
    ) -> None:
        super().__init__(step, inputs, how, ignorable)

    def __str__(self) -> str:
        """Name the objects and the cure."""
        step, inputs, how, ignorable = self.args
        ignore = f", or leave it out with ignore=({ignorable[0]!r},)" if ignorable else ""
        return (
            f"{step}: {', '.join(inputs)} {how} after the step was started and before its "
            f"body ran, so its outcome would be saved under inputs that it did not have; "
            f"pass a copy, or wait for the step before changing it{ignore}"
        )


class RetriesExhaustedError(StepError):
    """The attempts died with the kernel, or a predicate refused every result."""

    def __init__(self, step: str, attempts: int, reason: str) -> None:
        super().__init__(step, attempts, reason)

    def __str__(self) -> str:
        """Name the step, the number of attempts and the reason."""
        step, attempts, reason = self.args
        return f"{step}: gave up after {attempts} attempts: {reason}"


class WaitTimeoutError(DurableError, TimeoutError):
    """``.result(timeout=...)`` ran out; the step itself goes on."""

    def __init__(self, step: str, seconds: float) -> None:
        super().__init__(step, seconds)

    def __str__(self) -> str:
        """Name the step and the wait."""
        step, seconds = self.args
        return f"{step}: not finished after a wait of {seconds:g} s (it goes on)"


class CodecError(DurableError):
    """A value could not be turned into a payload or back."""


class EncodeError(CodecError):
    """A value can't be stored; the second field is the cure, where one is known."""

    @property
    def cure(self) -> str:
        """What to do instead; nothing where that depends on the value."""
        return str(self.args[1]) if len(self.args) > 1 else ""

    def __str__(self) -> str:
        """Say the reason and the cure."""
        return "; ".join(str(part) for part in self.args if part)


class DecodeError(CodecError):
    """A stored value can't be restored here."""


class UntrustedCheckpointError(CodecError):
    """A signature does not hold; nothing of it was unpickled."""


class FingerprintError(DurableError):
    """An input or a function has no fingerprint that another process could compare."""


class StoreError(DurableError):
    """The store could not be used; what it holds is untouched."""


class StoreLockedError(StoreError):
    """Another process holds the store."""


class StoreVersionError(StoreError):
    """The store was written by a newer nbdurable."""


class StoreCorruptError(StoreError):
    """The file is not a DuckDB database, or what it holds contradicts itself."""


class StoreFullError(StoreError):
    """The disk is full; what was acknowledged is kept."""
