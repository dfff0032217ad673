"""selfheal inside a service of your own: wrap a module, predict, observe, roll back."""

from selfheal_cli.api.service import SelfHealing

__all__ = ["SelfHealing"]
