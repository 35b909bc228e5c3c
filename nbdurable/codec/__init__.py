"""Values, errors and classes to payloads and back, and the signatures over them."""
