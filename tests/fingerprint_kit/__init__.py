"""What the fingerprint tests share: simulated notebooks and a table of values."""
