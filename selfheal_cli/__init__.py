"""selfheal: keep a drifting PyTorch model useful until it can be retrained."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfheal_cli.api.flow import ComparisonTable, compare, run, suggest_rules, wrap
    from selfheal_cli.api.report import Report
    from selfheal_cli.api.service import SelfHealing, load
    from selfheal_cli.config import Policy

DISTRIBUTION = "selfheal-cli"  # on package indexes, 'selfheal' is another project
__version__ = "0.2.0"
__all__ = [
    "ComparisonTable", "Policy", "Report", "SelfHealing", "__version__", "compare", "load", "run",
    "suggest_rules", "wrap",
]  # fmt: skip

_PLACES = {
    "SelfHealing": "api.service", "load": "api.service", "Policy": "config", "Report": "api.report",
    "ComparisonTable": "api.flow", "compare": "api.flow", "run": "api.flow",
    "suggest_rules": "api.flow", "wrap": "api.flow",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load what is asked for, and torch and MLflow with it, no sooner."""
    if name not in _PLACES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
