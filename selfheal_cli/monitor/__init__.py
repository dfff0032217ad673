"""MONITOR: what a batch says about the data, the rules and the model."""
