"""Events: what happened, in order, and why. Everything that is shown is folded from it."""
