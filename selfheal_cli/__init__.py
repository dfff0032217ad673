"""selfheal: keep a drifting PyTorch model useful until it can be retrained."""

DISTRIBUTION = "selfheal-cli"  # on package indexes, 'selfheal' is another project
__version__ = "0.2.0"
