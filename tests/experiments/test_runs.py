from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from imbdyn.experiments.config import ExperimentConfig, load_config
from imbdyn.experiments.data import SplitData
from imbdyn.experiments.run import ExistingRunError, directory, plan, unfinished
from imbdyn.experiments.train import Run, epochs_done, train
from imbdyn.trace import Trace, open_trace


@pytest.fixture(scope="module")
def config() -> ExperimentConfig:
    default = load_config()
    return replace(default, train=replace(default.train, epochs=2))


@pytest.fixture(scope="module")
def data(config: ExperimentConfig) -> SplitData:
    return config.data.load(config.seed)


def trained(run: Run, data: SplitData, out: Path) -> Trace:
    train(run, data, out, force=False, on_epoch=lambda: None)
    return open_trace(out)


def measured(trace: Trace) -> dict[str, pd.DataFrame]:
    """All that does not depend on the clock."""
    return {name: getattr(trace, name) for name in ("classes", "class_gradients", "features", "classifier")}


def test_the_three_runs_share_their_rare_classes(config: ExperimentConfig, data: SplitData) -> None:
    runs = plan(config, data)
    smallest = min(data.train_counts())
    few = round(smallest / 20)
    assert [run.name for run in runs] == ["balanced", "imbalanced", "scarce"]
    assert runs[0].class_counts == [smallest] * 10
    assert runs[2].class_counts == [few] * 10
    rare = runs[1].rare_classes
    assert len(rare) == 5
    assert runs[1].class_counts == [few if c in rare else smallest for c in range(10)]
    assert runs[0].rare_classes == rare == runs[2].rare_classes


def test_a_trace_holds_every_epoch_of_its_run(config: ExperimentConfig, data: SplitData, tmp_path: Path) -> None:
    run = plan(config, data)[1]
    epochs: list[None] = []
    train(run, data, tmp_path / "run", force=False, on_epoch=lambda: epochs.append(None))
    trace = open_trace(tmp_path / "run")
    assert len(epochs) == config.train.epochs
    assert trace.run["status"] == "finished"
    assert trace.run["config"] == run.as_dict()
    assert trace.run["class_counts"] == run.class_counts
    evaluated = trace.classes[trace.classes["split"] == "train_eval"]
    assert sorted(evaluated["epoch"].dropna().unique()) == [1, 2]
    untrained = trace.classes[trace.classes["step"] == 0]
    assert sorted(untrained["split"].unique()) == ["test", "train_eval"], "before the first step, of no epoch"
    assert untrained["epoch"].isna().all()
    assert set(trace.features["step"][trace.features["split"] == "train_eval"]) == set(evaluated["step"])
    assert evaluated[evaluated["epoch"] == 1]["count"].tolist() == run.class_counts
    # the first step, and every fifth after it
    steps = trace.run["overhead"]["steps"]
    assert trace.class_gradients["step"].nunique() == 1 + steps // config.monitor.interval


def test_equal_seeds_give_equal_traces_whatever_the_random_state(
    config: ExperimentConfig, data: SplitData, tmp_path: Path
) -> None:
    run = plan(config, data)[2]
    first = measured(trained(run, data, tmp_path / "first"))
    torch.manual_seed(12345)
    state = torch.random.get_rng_state()
    again = measured(trained(run, data, tmp_path / "again"))
    assert torch.random.get_rng_state().equal(state)
    for name, frame in first.items():
        assert not frame.empty
        pd.testing.assert_frame_equal(frame, again[name], check_exact=True)


def test_an_interrupt_leaves_a_readable_trace(config: ExperimentConfig, data: SplitData, tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    threads = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        train(plan(config, data)[2], data, tmp_path / "run", force=False, on_epoch=interrupt)
    trace = open_trace(tmp_path / "run")
    assert trace.run["status"] == "interrupted"
    assert trace.classes["epoch"].dropna().unique().tolist() == [1]
    assert torch.get_num_threads() == threads


def test_resume_keeps_what_is_finished_and_nothing_else(
    config: ExperimentConfig, data: SplitData, tmp_path: Path
) -> None:
    runs, folder = plan(config, data), directory(tmp_path, config)
    assert folder == tmp_path / "default-seed0"
    assert unfinished(runs, folder, resume=False, force=False) == runs
    trained(runs[2], data, folder / "scarce")
    (folder / "balanced").mkdir()
    with pytest.raises(ExistingRunError, match=r"balanced exists and is not overwritten: --resume .* --force"):
        unfinished(runs, folder, resume=False, force=False)
    assert unfinished(runs, folder, resume=True, force=False) == runs[:2]
    assert unfinished(runs, folder, resume=False, force=True) == runs


def test_a_run_that_is_resumed_is_the_run_that_was_not_interrupted(
    config: ExperimentConfig, data: SplitData, tmp_path: Path
) -> None:
    run = plan(config, data)[2]
    whole = measured(trained(run, data, tmp_path / "whole"))

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run, data, tmp_path / "run", force=False, on_epoch=interrupt)
    assert epochs_done(run, tmp_path / "run") == 1
    train(run, data, tmp_path / "run", force=False, resume=True, on_epoch=lambda: None)
    assert epochs_done(run, tmp_path / "run") == 0, "its checkpoint is removed in the end"
    resumed = open_trace(tmp_path / "run")
    assert resumed.run["status"] == "finished"
    assert resumed.run["class_counts"] == run.class_counts
    for name, frame in whole.items():
        pd.testing.assert_frame_equal(frame, measured(resumed)[name], check_exact=True)


def test_a_checkpoint_of_another_configuration_is_not_gone_on_with(
    config: ExperimentConfig, data: SplitData, tmp_path: Path
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    run = plan(config, data)[2]
    with pytest.raises(KeyboardInterrupt):
        train(run, data, tmp_path / "run", force=False, on_epoch=interrupt)
    other = plan(replace(config, train=replace(config.train, lr=0.01)), data)[2]
    assert epochs_done(other, tmp_path / "run") == 0
    train(other, data, tmp_path / "run", force=False, resume=True, on_epoch=lambda: None)
    trace = open_trace(tmp_path / "run")
    assert trace.run["config"] == other.as_dict()
    assert sorted(trace.classes["epoch"].dropna().unique()) == [1, 2]


def test_resume_refuses_a_finished_run_of_another_configuration(
    config: ExperimentConfig, data: SplitData, tmp_path: Path
) -> None:
    trained(plan(config, data)[2], data, tmp_path / "scarce")
    other = plan(replace(config, train=replace(config.train, lr=0.01)), data)
    with pytest.raises(ExistingRunError, match="another configuration"):
        unfinished(other, tmp_path, resume=True, force=False)
