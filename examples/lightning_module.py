"""The deep sigmoid network again, in Lightning: one callback is all that is added.

python examples/lightning_module.py [--logdir runs/lightning] [--fail]

With ``--fail`` the training stops at the first vanishing gradient, as one wants it in CI.
"""

from __future__ import annotations

import argparse

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from gradwatch.lightning import GradWatchCallback


class DeepClassifier(pl.LightningModule):
    """Twelve linear layers with sigmoids between them, at PyTorch's default initialisation."""

    def __init__(self, depth: int = 12, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(depth - 1):
            layers += [nn.Linear(width, width), nn.Sigmoid()]
        self.net = nn.Sequential(*layers, nn.Linear(width, 10))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def load_data() -> DataLoader:
    bunch = load_digits()
    x = torch.tensor(bunch.data, dtype=torch.float32)
    x = (x - x.mean()) / x.std()
    return DataLoader(TensorDataset(x, torch.tensor(bunch.target)), batch_size=64, shuffle=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--logdir", default="runs/lightning")
    options.add_argument("--fail", action="store_true")
    chosen = options.parse_args()

    pl.seed_everything(0)
    callback = GradWatchCallback(fail_on=("vanishing",) if chosen.fail else ())
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=TensorBoardLogger(chosen.logdir, name=None),
        callbacks=[callback],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(DeepClassifier(), load_data())
    print(callback.report())


if __name__ == "__main__":
    main()
