"""selfheal: keep a drifting PyTorch model useful until it can be retrained."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("selfheal")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+unknown"
