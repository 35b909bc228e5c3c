"""Values, errors and classes to payloads and back, and the signatures over them."""

from . import linked  # noqa: F401 - pickles in a store name what is in it
