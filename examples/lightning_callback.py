"""In Lightning: one callback, and the LightningModule stays as it is.

    .venv/bin/pip install -q -c constraints.txt -e . "lightning>=2.5" && .venv/bin/python examples/lightning_callback.py

writes the trace runs/lightning in some ten seconds; `imbdyn show runs/lightning` prints it. The callback is yours to
copy. Lightning runs forward, zero_grad and backward in a closure inside of optimizer.step: the batch is left after it.
"""

from __future__ import annotations

from contextlib import ExitStack

import lightning as L
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

import imbdyn


class ClassGradients(L.Callback):
    """Measures what each class does to `module.network`, of one optimizer, and writes it to `out`.

    Batches are pairs (x, labels). Each evaluation is one split: "test" here is what Lightning calls validation.
    """

    def __init__(self, num_classes, out, **options):
        self.arguments = {"num_classes": num_classes, "out": out, **options}
        self.open = ExitStack()

    def on_train_start(self, trainer, module):
        self.monitor = imbdyn.Monitor(module.network, trainer.optimizers[0], **self.arguments)

    def on_train_epoch_start(self, trainer, module):
        self.monitor.epoch = trainer.current_epoch

    def on_train_batch_start(self, trainer, module, batch, index):
        self.open.enter_context(self.monitor.batch(batch[1]))

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.open.close()

    def on_validation_start(self, trainer, module):
        if not trainer.sanity_checking:  # which comes before the training
            self.evaluation = self.monitor.evaluate("test")
            self.evaluation.__enter__()

    def on_validation_batch_start(self, trainer, module, batch, index, loader=0):
        if not trainer.sanity_checking:
            self.open.enter_context(self.monitor.batch(batch[1]))

    def on_validation_batch_end(self, trainer, module, outputs, batch, index, loader=0):
        self.open.close()

    def on_validation_end(self, trainer, module):
        if not trainer.sanity_checking:
            self.evaluation.__exit__(None, None, None)

    def on_train_end(self, trainer, module):
        self.monitor.close()

    def on_exception(self, trainer, module, exception):
        if hasattr(self, "monitor"):
            self.monitor.close("interrupted" if isinstance(exception, KeyboardInterrupt) else "failed")


class Classifier(L.LightningModule):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def training_step(self, batch, index):
        x, labels = batch
        return F.cross_entropy(self.network(x), labels)

    def validation_step(self, batch, index):
        x, labels = batch
        self.log("test_loss", F.cross_entropy(self.network(x), labels))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def data(counts):
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(counts)])
    return TensorDataset(torch.randn(len(labels), 1, 12, 12) + 0.1 * labels[:, None, None, None], labels)


def train(*callbacks, **options):
    """Train on four classes, the rarest 1/30 of the most frequent, and return the network."""
    L.seed_everything(0, verbose=False)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(800, 4)
    )
    trainer = L.Trainer(
        max_epochs=5, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[*callbacks], **options
    )
    trainer.fit(
        Classifier(network),
        DataLoader(data([300, 100, 30, 10]), batch_size=32, shuffle=True),
        DataLoader(data([50] * 4), batch_size=100),
    )
    return network


if __name__ == "__main__":
    train(ClassGradients(num_classes=4, out="runs/lightning", force=True))
    print(imbdyn.open_trace("runs/lightning").findings()[["name", "sentence"]])
