"""What a step is asked with, digested: its code, its arguments, what it writes.

Invariant: looks only; the call has no place in program order yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbdurable.handles.call_identity import digest_of_version

from .usage import Claim

if TYPE_CHECKING:
    from collections.abc import Callable

    from nbdurable.fingerprint import Fingerprinter, Held
    from nbdurable.handles.scope import Scope
    from nbdurable.steps.options import StepOptions

    from .contents import Contents
    from .pinned import Pinned
    from .usage import Usage


class Claims:
    """Makes the claims of one execution."""

    def __init__(
        self, prints: Fingerprinter, usage: Usage, contents: Contents, pinned: Pinned | None
    ) -> None:
        """Make claims; with ``pinned``, versions of packages belong to a step's code."""
        self._prints = prints
        self._usage = usage
        self._contents = contents
        self._pinned = pinned

    def claim(  # noqa: PLR0917 - what a call is made of
        self,
        where: Scope,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: StepOptions,
        held: Held | None,
    ) -> Claim:
        """Digest what is asked for."""
        moment = self._usage.moment
        used = self._usage.used_by(function, options)
        code, digest, pins = None, b"", b""
        if options.version is None:
            code = self._prints.code(function, ignore=options.ignore, used=used)
            digest = code.digest
            if self._pinned is not None:
                pins, code = self._pinned.code(function, code)
        else:
            digest = digest_of_version(options.version)
        if options.key is not None:
            inputs = self._prints.value(options.key(*arguments, **keywords), "key")
        else:
            inputs = self._prints.arguments(
                function, arguments, keywords, ignore=options.ignore, held=held, used=used
            )
        called = self._prints.called(function, options, used)
        bases = self._contents.bases(options.name, code) if code and code.contents else ()
        claim = Claim(
            where, function, options, called, code, digest, inputs, used, moment, bases, pins
        )
        return claim._replace(code_digest=claim.coded(digest)) if bases or pins else claim
