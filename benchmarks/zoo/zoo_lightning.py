"""A Lightning module with hyperparameters."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from zoo_data import table


class Lit(pl.LightningModule):
    """A small classifier."""

    def __init__(self, width: int = 16, rate: float = 0.01) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(12, width), nn.ReLU(), nn.Linear(width, 2))
        self.loss = nn.CrossEntropyLoss()

    def forward(self, x: Tensor) -> Tensor:
        """Two logits."""
        return self.net(x)

    def training_step(self, batch: Any, _place: int) -> Tensor:
        """The loss."""
        x, y = batch
        return self.loss(self(x), y)

    def configure_optimizers(self) -> Any:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.hparams.rate)


def trained() -> Lit:
    """With its trainer attached."""
    x, y = table(1_000, 0)
    module = Lit(width=20)
    rows = DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=100)
    trainer = pl.Trainer(
        max_epochs=10, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(module, rows)
    return module
