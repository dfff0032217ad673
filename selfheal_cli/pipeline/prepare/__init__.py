"""Before the first batch: rows, the baseline, a model of the user's, the lease."""
