"""Signatures: the HMAC by which a store's rows are known to be this user's."""

from __future__ import annotations

import hmac


def sign(key: bytes, message: bytes) -> bytes:
    """Return the HMAC-SHA256 (RFC 2104) of `message`."""
    return hmac.digest(key, message, "sha256")


def signature_holds(key: bytes, signature: bytes, message: bytes) -> bool:
    """Tell whether `signature` is that of `message`, in constant time."""
    return hmac.compare_digest(hmac.digest(key, message, "sha256"), signature)
