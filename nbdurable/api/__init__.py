"""What user code calls: steps, workflows, combinators, settings, and stores held open."""
