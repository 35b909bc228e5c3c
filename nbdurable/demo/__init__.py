"""The demonstrations: a kernel that is killed, and the paid provider that counts."""
