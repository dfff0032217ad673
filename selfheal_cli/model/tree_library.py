"""Whether LightGBM can be loaded here; it is loaded when asked for, and never before."""

from __future__ import annotations

from selfheal_cli.errors import ConfigurationError, one_line


def why_no_trees() -> str:
    """Why LightGBM cannot be loaded; empty where it can."""
    try:
        import lightgbm  # noqa: F401
    except (ImportError, OSError) as exc:  # the latter without the system's libgomp
        return one_line(exc)
    return ""


def require_trees(what: str) -> None:
    """Raise `ConfigurationError` where ``what`` holds trees and LightGBM cannot be loaded."""
    reason = why_no_trees()
    if reason:
        raise ConfigurationError(
            f"{what} holds boosted trees, and LightGBM cannot be loaded ({reason}): pip install "
            "lightgbm, and the system's libgomp"
        )
