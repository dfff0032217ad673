"""The network within what other libraries put around it."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from selfheal_cli.errors import ModelError

# where a library's object keeps its network: skorch, pytorch-tabnet, trainers
PLACES = ("module_", "network", "model_", "model")


def unwrapped(model: Any) -> nn.Module:
    """The module itself; raises `ModelError` for what holds none.

    It is taken out of torch.compile's and DataParallel's wrappers, and out of objects that keep a
    trained network (skorch's ``module_``, TabNet's ``network``).
    """
    while True:
        if isinstance(model, DataParallel | DistributedDataParallel):
            model = model.module
        elif not isinstance(model, nn.Module):
            model = _within(model)
        elif type(model).__module__.startswith("keras."):
            raise ModelError(
                f"a {type(model).__name__} of Keras keeps more than torch's layers and is not "
                "taken: give a torch.nn.Module, or a python_function of MLflow's with probabilities"
            )
        elif "_orig_mod" in model._modules:
            model = model._modules["_orig_mod"]
        else:
            return model


def _within(model: Any) -> Any:
    for name in PLACES:
        inner = vars(model).get(name) if hasattr(model, "__dict__") else None
        if isinstance(inner, nn.Module):
            return inner
    if isinstance(model, type):
        raise ModelError(f"{model.__name__} is a class: make a model of it, and give that")
    kind = type(model).__name__
    raise ModelError(
        f"a {kind} is no torch.nn.Module and holds none; these are taken, classifiers of "
        "scikit-learn's, XGBoost's, LightGBM's and CatBoost's, and what MLflow has, by 'selfheal "
        "wrap models:/NAME/VERSION'"
    )
