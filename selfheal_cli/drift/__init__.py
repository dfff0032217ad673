"""Drift: what a batch says about the features and the scores."""
