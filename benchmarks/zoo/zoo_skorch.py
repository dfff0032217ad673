"""A classifier as scikit-learn has it."""

from __future__ import annotations

import torch
from skorch import NeuralNetClassifier
from zoo_data import table
from zoo_models import Net


def fitted() -> NeuralNetClassifier:
    """Trained."""
    x, y = table(1_000, 0)
    torch.manual_seed(0)
    model = NeuralNetClassifier(
        Net, module__outputs=2, criterion=torch.nn.CrossEntropyLoss, max_epochs=15, lr=0.1,
        train_split=None, verbose=0,
    )  # fmt: skip
    return model.fit(x, y)
