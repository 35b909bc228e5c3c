"""Tables of edits, by what they are edits of; `fingerprint_kit.editing` says how to read them."""
