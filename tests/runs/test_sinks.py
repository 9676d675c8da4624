"""`--log-to`: TensorBoard and Weights & Biases get what metrics.jsonl gets, and change nothing."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from comparisons import LEARN, MEASURE, METHODS, TOYS
from rich.console import Console
from stage_tools import BC, SMALL, TEACHER, call, error_of, fingerprint, metrics_of
from toy_runs import Config

import tscli
from tscli.cli.app import main
from tscli.runs import Run, RunWriter, Session, find_unfinished, list_runs
from tscli.runs.sinks import parse_sinks

LINES = [{"step": 10, "loss/policy": 0.5, "rollout/return": None}, {"step": 20, "loss/policy": 0.25, "eval/return": 7}]


def start(folder: Path, *sinks: str, **session: Any) -> RunWriter:
    calling = Session(folder / "runs", **({"sinks": sinks} if sinks else {}), **session)
    return calling.start(Config(seed=3), "train-teacher", "cartpole", role="teacher")


def points_of(lines: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Name -> (step, value) of all numbers in lines of metrics.jsonl, but for the step itself."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for name, value in line.items():
            if name != "step" and value is not None:
                found.setdefault(name, []).append((line["step"] if "step" in line else line["updates"], value))
    return found


@pytest.fixture
def tensorboard() -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard: pip install 'tscli[tensorboard]'")


# --- TensorBoard ------------------------------------------------------------------------------------------------------


def tensorboard_of(run: Path) -> Any:
    module = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    found = module.EventAccumulator(str(run / "tensorboard"))
    found.Reload()
    return found


def check_tensorboard(run: Path) -> None:
    """Every number of metrics.jsonl is there once, at its step."""
    events = tensorboard_of(run)
    expected = points_of([json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()])
    assert set(events.Tags()["scalars"]) == set(expected)
    for name, points in expected.items():
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in found] == [step for step, _ in points], name
        assert [value for _, value in found] == pytest.approx([value for _, value in points], rel=1e-6), name


@pytest.mark.usefixtures("tensorboard")
def test_tensorboard_shows_what_metrics_jsonl_holds(folder: Path) -> None:
    made = call(*TEACHER, "--log-to", "tensorboard")
    check_tensorboard(made.path)
    events = tensorboard_of(made.path)
    (config,) = events.Tensors("config/text_summary")
    assert b'"total_steps": 384' in config.tensor_proto.string_val[0]
    (curves,) = events.Images("curves")
    assert (curves.width, curves.height) == size_of(made.path / "curves.png")


def size_of(path: Path) -> tuple[int, int]:
    from PIL import Image

    with Image.open(path) as picture:
        return picture.size


@pytest.mark.usefixtures("tensorboard", "no_plots")
def test_a_stage_without_env_steps_is_shown_over_its_gradient_steps(runs: Path) -> None:
    made = call(*BC, *SMALL, "--log-to", "tensorboard")
    assert "step" not in metrics_of(made)[0]
    check_tensorboard(made.path)


@pytest.mark.usefixtures("tensorboard", "no_plots")
def test_a_run_is_the_same_with_and_without_sinks(folder: Path) -> None:
    plain, shown = call(*TEACHER), call(*TEACHER, "--log-to", "tensorboard")
    assert fingerprint(plain) == fingerprint(shown)
    assert plain.manifest["config_hash"] == shown.manifest["config_hash"]
    assert (plain.path / "config.yaml").read_bytes() == (shown.path / "config.yaml").read_bytes()


def stop_and_resume(folder: Path, first: str, **again: Any) -> Path:
    """A run that is killed after its checkpoint, and goes on; gives its folder."""
    with pytest.raises(ValueError), start(folder, first) as run:
        run.log(LINES[0])
        run.checkpoint({"values": {}})
        run.log({"step": 20, "loss/policy": 99.0})
        raise ValueError("power cut")
    with start(folder, resume=find_unfinished(folder / "runs", "train-teacher", None, ""), **again) as run:
        run.log(LINES[1])
        run.finish({"eval/return": 7.0})
    return run.path


@pytest.mark.usefixtures("tensorboard")
def test_a_resumed_run_has_each_point_once_in_tensorboard(tmp_path: Path) -> None:
    path = stop_and_resume(tmp_path, "tensorboard")
    assert [event.value for event in tensorboard_of(path).Scalars("loss/policy")] == [0.5, 0.25]
    check_tensorboard(path)


@pytest.mark.usefixtures("tensorboard")
def test_a_resumed_run_leaves_out_its_sinks_where_it_is_told_to(tmp_path: Path) -> None:
    path = stop_and_resume(tmp_path, "tensorboard", sinks=())
    assert [event.value for event in tensorboard_of(path).Scalars("loss/policy")] == [0.5, 99.0]


@pytest.mark.usefixtures("tensorboard")
def test_the_cells_of_a_comparison_are_shown_as_well(folder: Path) -> None:
    for name, text in {"learn.py": LEARN, "measure.py": MEASURE, "methods.yaml": METHODS}.items():
        (folder / name).write_text(text)
    assert main([*TOYS, "--methods", "weak", "--seeds", "1", "--log-to", "tensorboard"]) == 0
    (cell,) = folder.glob("runs/cells/*/*-learn-*")
    check_tensorboard(cell)
    (report,) = folder.glob("runs/*-compare-cartpole")
    assert tensorboard_of(report).Tags()["images"], "the comparison's own pictures"


# --- Weights & Biases -------------------------------------------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs wandb: pip install 'tscli[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")


def records(file: Path) -> Iterator[Any]:
    """What an offline run's file holds: a log of blocks of 32 KiB, a record in one chunk (1) or several (2, 3, 4)."""
    make = importlib.import_module("wandb.proto.wandb_internal_pb2").Record
    data, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = -place % 32768
        if left and left < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            record = make()
            record.ParseFromString(whole)
            whole = b""
            yield record


def wandb_of(run: Path) -> dict[str, Any]:
    """Id, name, settings, history and summary of the newest offline run in a run folder."""
    importlib.import_module("wandb").teardown()  # as at a process's end: waits for the process that writes the files
    (file,) = sorted((run / "wandb").glob("offline-run-*"))[-1].glob("run-*.wandb")
    found: dict[str, Any] = {"history": [], "summary": {}, "config": {}}
    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found |= {"id": record.run.run_id, "name": record.run.display_name}
            found["config"] |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            line = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            found["history"].append({"step": record.history.step.num, **line})
        elif kind == "summary":
            items = record.summary.update
            found["summary"] |= {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}
    return found


@pytest.mark.usefixtures("offline")
def test_wandb_gets_the_same_without_a_network(tmp_path: Path) -> None:
    with start(tmp_path, "wandb") as run:
        for line in LINES:
            run.log(line)
        run.finish({"eval/return": 7.0})
    found = wandb_of(run.path)
    assert found["name"] == run.name and found["id"] == run.manifest["sinks"]["wandb"]
    assert found["config"]["lr"] == 0.1 and found["config"]["seed"] == 3
    ours = [{k: v for k, v in line.items() if not k.startswith("_")} for line in found["history"]]
    assert points_of(ours) == points_of(LINES)
    assert found["summary"]["final/eval/return"] == 7.0


@pytest.mark.usefixtures("offline")
def test_a_resumed_run_keeps_its_wandb_id_and_its_newest_folder_holds_all(tmp_path: Path) -> None:
    path = stop_and_resume(tmp_path, "wandb")
    assert len({file.name for file in path.glob("wandb/offline-run-*/run-*.wandb")}) == 1
    ours = [{k: v for k, v in line.items() if not k.startswith("_")} for line in wandb_of(path)["history"]]
    assert points_of(ours) == points_of(LINES)


# --- what goes wrong --------------------------------------------------------------------------------------------------


def finish_with_a_broken_sink(folder: Path) -> tuple[Run, str]:
    """A run that logs three lines to TensorBoard, and what it says."""
    said = Console(file=io.StringIO(), width=200)
    with start(folder, "tensorboard", log=said) as run:
        for step in (1, 2, 3):
            run.log({"step": step, "loss/policy": 0.5})
        made = run.finish({})
    return made, said.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("tensorboard")
@pytest.mark.parametrize("where", ["__init__", "add_scalar", "add_text", "close"])
def test_a_sink_that_fails_is_dropped_with_one_warning(tmp_path: Path, monkeypatch: Any, where: str) -> None:
    from torch.utils.tensorboard import SummaryWriter

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space [left] on device")

    monkeypatch.setattr(SummaryWriter, where, fail)
    made, said = finish_with_a_broken_sink(tmp_path)
    assert made.status == "finished" and len((made.path / "metrics.jsonl").read_text().splitlines()) == 3
    assert said.splitlines() == ["warning: no more is sent to tensorboard (OSError: no space [left] on device)"]


@pytest.mark.usefixtures("folder")
def test_an_unknown_sink_and_a_missing_package_are_refused_before_any_work(monkeypatch: Any, capsys: Any) -> None:
    assert 'did you mean "tensorboard"?' in error_of(capsys, "train-teacher", "cartpole", "--log-to", "tensorbord")
    assert parse_sinks(["none"]) == ()
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "wandb" else real(name, *a))
    for words in (("train-teacher", "cartpole"), ("pipeline", "cartpole")):
        assert "pip install 'tscli[wandb]'" in error_of(capsys, *words, "--log-to", "wandb")
    with pytest.raises(tscli.config.UserError, match=r"tscli\[wandb\]"):
        tscli.run("train-teacher", task="cartpole", log_to=["wandb"])
    assert not Path("runs").exists()


def test_nothing_is_imported_for_sinks_that_nobody_asked_for(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "tscli.runs.sinks", None)
    with start(tmp_path) as run:
        run.log({"step": 1})
        assert "sinks" not in run.finish({}).manifest
    assert list_runs(tmp_path / "runs")[0].status == "finished"
