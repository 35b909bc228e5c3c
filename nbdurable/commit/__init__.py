"""The order of outcomes: numbers, the decisions that they close, what is told after."""
