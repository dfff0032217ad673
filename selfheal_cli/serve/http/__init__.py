"""What callers meet: scoring, feedback, tokens, limits and metrics."""
