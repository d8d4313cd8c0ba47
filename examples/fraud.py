"""What 1% of fraud does to a network: your own loop, watched class by class.

    .venv/bin/pip install -q -c constraints.txt -e ".[run,plot]" && .venv/bin/python examples/fraud.py

writes the trace runs/fraud and the figure fraud.png in some ten seconds. The table is synthetic, as scikit-learn comes
with no real one: 10,000 payments of 30 columns, 10 of which tell something, 1% fraud in two patterns, and 1 of 1,000
labels wrong, as where nobody complained.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from sklearn.datasets import make_classification
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import imbdyn

columns, fraud = make_classification(
    10_000, 30, n_informative=10, n_redundant=0, weights=[0.99], flip_y=0.002, class_sep=0.8, random_state=0
)
train_x, test_x, train_y, test_y = train_test_split(columns, fraud, test_size=0.4, stratify=fraud, random_state=0)
mean, deviation = train_x.mean(0), train_x.std(0)


def loader(x, y, **options):
    standardised = torch.tensor((x - mean) / deviation, dtype=torch.float32)
    return DataLoader(TensorDataset(standardised, torch.tensor(y)), **options)


torch.manual_seed(0)
train = loader(train_x, train_y, batch_size=128, shuffle=True)
evaluated = {"train_eval": loader(train_x, train_y, batch_size=2000), "test": loader(test_x, test_y, batch_size=2000)}
model = nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)


def evaluate(monitor):
    for split, batches in evaluated.items():
        with monitor.evaluate(split), torch.no_grad():
            for x, y in batches:
                with monitor.batch(y):
                    model(x)


names = ["payment", "fraud"]
with imbdyn.Monitor(model, optimizer, 2, "runs/fraud", class_names=names, interval=5, force=True) as monitor:
    evaluate(monitor)  # before the first step: what the network guesses untrained
    for epoch in range(1, 13):
        monitor.epoch = epoch
        for x, y in train:
            with monitor.batch(y):
                F.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
        evaluate(monitor)

trace = imbdyn.open_trace("runs/fraud")
found = trace.findings()
for finding in found[found.sentence != ""].itertuples():
    print(f"{finding.name}: {finding.sentence}")

figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
trace.plot.recall(axes[0], split="train_eval").set_title("Recall on training data", loc="left")
trace.plot.recall(axes[1], split="test").set_title("Recall on held-out data", loc="left")
trace.plot.gradient_shares(axes[2]).set_title("Who moves the weights", loc="left")
figure.savefig("fraud.png", dpi=130)
