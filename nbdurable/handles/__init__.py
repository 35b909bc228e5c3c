"""What a cell holds: handles, the combinators over them, and where code stands."""
