"""DistributedDataParallel: two ranks train as they would without a Monitor, and each reads its own batches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from forked_python import ForkedPython
from torch import nn

import imbdyn
from imbdyn.monitor import ranks

CLASSES = 3

#: argv: folder, how it is wrapped ("" or "static_graph"), micro-batches a step.
SCRIPT = """
import json, os, sys, warnings
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import imbdyn
from imbdyn.reference import class_gradients

folder, how, micro = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
child = os.fork()
rank = 0 if child else 1
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)


def train(monitored):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    model = DistributedDataParallel(net, static_graph=how == "static_graph")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    random = torch.Generator().manual_seed(rank)
    first = None
    monitor = imbdyn.Monitor(model, optimizer, 3, folder / "run", interval=1) if monitored else None
    for _ in range(3):
        for i in range(micro):
            x = torch.randn(8, 1, 6, 6, generator=random)
            y = torch.arange(8) % (3 - rank)
            if first is None:
                losses = F.cross_entropy(net(x), y, reduction="none") / len(y)
                of_class = class_gradients(losses, y, 3, net.named_parameters())
                first = {name: g.flatten(1).norm(dim=1).tolist() for name, g in of_class.items()}
            with model.no_sync() if i + 1 < micro else nullcontext(), monitor.batch(y) if monitor else nullcontext():
                F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    if monitor:
        monitor.close()
    return first, [p.tolist() for p in net.parameters()]


with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always", imbdyn.ImbdynWarning)
    _, bare = train(False)
    first, weights = train(True)
told = [str(w.message) for w in said if issubclass(w.category, imbdyn.ImbdynWarning)]
places = [Path(w.filename).name for w in said if issubclass(w.category, imbdyn.ImbdynWarning)]
found = {"bare": bare, "weights": weights, "first": first, "told": told, "places": places}
(folder / f"found-{rank}.json").write_text(json.dumps(found))
dist.destroy_process_group()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize(("how", "micro"), [("", 1), ("static_graph", 1), ("", 2)])
def test_ranks_train_as_without_it_and_each_reads_its_own_batches(
    tmp_path: Path, python: ForkedPython, how: str, micro: int
) -> None:
    ran = python(SCRIPT, tmp_path, how, micro, environment={"IMBDYN_RUN_ID": "ranks"}, seconds=60)
    assert ran.returncode == 0, ran.stderr.decode()
    trace = imbdyn.open_trace(tmp_path / "run")
    found = [json.loads((tmp_path / f"found-{rank}.json").read_text()) for rank in (0, 1)]
    assert found[0]["bare"] == found[1]["bare"] == found[0]["weights"] == found[1]["weights"]
    read = trace.class_gradients
    for rank in (0, 1):
        assert found[rank]["told"] == [ranks.NOT_COMPARED]
        assert found[rank]["places"] == ["<script>"], "the warning names the line of the user"
        own = read[(read["rank"] == rank) & (read.step == 1)].set_index(["parameter", "class_id"])
        assert set(own.loc["3.weight"].index) == set(range(3 - rank)), "classes of the rank's own batch"
        if micro == 1:
            for name, norms in found[rank]["first"].items():
                assert own.loc[name].grad_norm.tolist() == pytest.approx(norms[: 3 - rank], rel=1e-5)
        assert own.loc["*"].grad_share.sum() == pytest.approx(1)
    assert len(trace.parameters) == 2 * 3 * 4
    assert trace.parameters.residual.isna().all(), "a mean over ranks is not the sum of one rank's class gradients"
    assert trace.steps.grad_scale.isna().all()
    assert trace.run["problems"]["ranks"]["times"] == 1
    assert trace.run["coverage"]["share"] == 1


def test_a_rank_without_a_run_id_is_told_how_it_gets_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    monkeypatch.delenv("IMBDYN_RUN_ID", raising=False)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    model = nn.Linear(4, CLASSES)
    with pytest.raises(ValueError, match="a Monitor takes it from IMBDYN_RUN_ID"):
        imbdyn.Monitor(model, torch.optim.SGD(model.parameters(), lr=0.1), CLASSES, tmp_path / "run")


#: argv: folder.
SHARDED = """
import sys
import torch, torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.device_mesh import init_device_mesh
import imbdyn

dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/meeting", rank=0, world_size=1)
model = fully_shard(torch.nn.Linear(4, 3), mesh=init_device_mesh("cpu", (1,)))
try:
    imbdyn.Monitor(model, torch.optim.SGD(model.parameters(), lr=0.1), 3, sys.argv[1] + "/run")
except ValueError as error:
    print(error)
dist.destroy_process_group()
"""


def test_what_would_wait_for_other_ranks_is_refused(
    tmp_path: Path, python: ForkedPython, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = python(SHARDED, tmp_path)
    assert ran.returncode == 0, ran.stderr.decode()
    assert ran.stdout.startswith(b"FSDP cannot be watched (module ''): its backward passes wait for all ranks")
    model = nn.Sequential(nn.Linear(4, 8), nn.SyncBatchNorm(8), nn.Linear(8, CLASSES))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monkeypatch.setattr(ranks, "several", lambda: True)
    with pytest.raises(ValueError, match=r"SyncBatchNorm in several ranks cannot be watched \(module '1'\)"):
        imbdyn.Monitor(model, optimizer, CLASSES, tmp_path / "run")
    assert not (tmp_path / "run").exists()
