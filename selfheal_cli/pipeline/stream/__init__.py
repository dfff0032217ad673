"""One batch through the stages: score, monitor, heal, snapshot, roll back."""
