"""Events to a view: how a run stands, in words, as a timeline, live."""
