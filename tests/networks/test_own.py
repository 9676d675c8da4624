"""Bodies in files of one's own: trained, kept with the run, and run again by whom its owner lets."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import signal
import tempfile
from pathlib import Path

import pytest
import torch
from policies import DISCRETE, view
from stage_tools import BC, TEACHER, at_call, call, error_of, signal_once, weights_hash

import tscli
from tscli import trust
from tscli.cli.app import main
from tscli.config import NetworkConfig, UserError
from tscli.files import file_hash
from tscli.learning.optim import FlatAdam
from tscli.networks import LatentSpec, Policy, PolicySpec, own
from tscli.networks.files import load_policy_file, save_policy_file
from tscli.runs import list_runs

BODY = '''
"""One layer."""

from pydantic import Field
from torch import nn

from tscli.config import Config
from tscli.networks.bodies import BaseBody


class BodyConfig(Config):
    """Its width."""

    width: int = Field(5, ge=1, description="Width.")


class Body(BaseBody):
    """No memory."""

    def __init__(self, inputs, config):
        super().__init__()
        self.layer = nn.Linear(inputs, config.width)
        self.output_size = config.width

    def forward(self, x, hidden, reset):
        return self.layer(x).tanh(), hidden
'''
MINE = (*TEACHER, "--network", "./mine.py", "--set", "network.settings.width=3")


@pytest.fixture(autouse=True)
def mine(folder: Path, no_plots: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A body of one's own in the folder to stand in, of which this process knows nothing yet."""
    monkeypatch.setenv(trust.TRUST, "0")
    (folder / "mine.py").write_text(BODY)
    forget(monkeypatch)
    return folder / "mine.py"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process of somebody else, who has named nothing yet."""
    monkeypatch.setenv("XDG_STATE_HOME", tempfile.mkdtemp(dir="."))
    monkeypatch.setattr(trust, "_allowed", set())
    monkeypatch.setattr(own, "_modules", {})
    monkeypatch.setattr(own, "_sources", {})


def policy_of(path: Path) -> Policy:
    return Policy(PolicySpec(view("state"), DISCRETE, NetworkConfig(kind=str(path))))


def test_a_body_of_ones_own_is_trained_kept_and_trusted_by_those_who_say_so(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = call(*MINE)
    kept = run.path / "bodies" / "mine.py"
    assert kept.read_text() == BODY
    assert run.config["network"]["kind"] == str(mine) and run.config["network"]["sha256"] == file_hash(mine)

    mine.unlink()
    forget(monkeypatch)
    error = error_of(capsys, "eval", "1", "--episodes", "2")
    assert "policy.safetensors would run code of its own, bodies/mine.py: read it, then add --trust" in error
    with pytest.raises(UserError, match="trust=True"):
        tscli.load_policy("1")
    assert tscli.load_policy("1", trust=True).spec.network.settings == {"width": "3"}
    forget(monkeypatch)
    call("eval", "1", "--episodes", "2", "--trust")
    kept.write_text(BODY.replace("tanh", "sin"))
    error = error_of(capsys, "eval", "1", "--episodes", "2", "--trust")
    assert "mine.py is missing, or has changed since policy.safetensors was written" in error


def test_a_file_that_the_user_names_again_may_run_wherever_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    call(*MINE)
    call("collect", "--episodes", "4")
    forget(monkeypatch)
    student = call(*BC, "--student", "mine.py", "--obs", "partial")
    assert (student.path / "bodies" / "mine.py").read_text() == BODY


def test_a_run_goes_on_with_the_file_that_it_began_with(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = weights_hash(call(*MINE).path / "policy.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr(FlatAdam, "step", at_call(FlatAdam.step, 14, signal_once(signal.SIGTERM)))
        assert main([*MINE, "--quiet"]) == 130
    forget(monkeypatch)
    again = ("train-teacher", "--resume")
    error = error_of(capsys, *again)
    assert f"config.yaml would run code of its own, {mine}: read it, then add --trust" in error
    mine.write_text(BODY.replace("tanh", "sin"))
    error = error_of(capsys, *again, "--trust")
    assert f"{mine} has changed since: restore it, or start anew" in error
    mine.write_text(BODY)
    resumed = call("train-teacher", "cartpole", "--resume", "--network", "./mine.py")
    assert resumed.number == 2 and weights_hash(resumed.path / "policy.safetensors") == expected


def test_a_task_that_came_with_a_run_names_no_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = "extends: cartpole\nstages: {distill: {student: ./mine.py}}\n"
    (folder / "theirs.yaml").write_text(task)
    call(*(word if word != "cartpole" else "theirs.yaml" for word in TEACHER))
    call("collect", "--episodes", "4")
    assert "task theirs, stages.distill would run code of its own" in error_of(capsys, *BC)
    assert call(*BC, "--student", "mlp", "--student.hidden", "8").config["student"]["kind"] == "mlp"
    assert call(*BC, "--trust").config["student"]["kind"].endswith("mine.py")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\ndef broken(:\n", r"mine\.py, line 2 is not valid Python: invalid syntax"),
        ("import heavy_module_that_is_not_there\n", r"mine\.py cannot be run \(ModuleNotFoundError: No module named"),
        ("x = 1\n", r"mine\.py is no body: it needs a `class BodyConfig\(Config\)`"),
        (BODY.replace("class Body(", "class Other("), r"mine\.py is no body: it needs a `class Body\(BaseBody\)`"),
        (BODY.replace("class Body(BaseBody)", "class Body(nn.Module)"), r"it needs a `class Body\(BaseBody\)`"),
    ],
)
def test_a_file_that_is_no_body_is_refused_before_anything_runs(mine: Path, text: str, words: str) -> None:
    mine.write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        policy_of(mine)
    assert "\n" not in str(caught.value)


def test_bad_settings_are_refused_before_a_run_begins(capsys: pytest.CaptureFixture[str]) -> None:
    error = error_of(capsys, *TEACHER, "--network", "./mine.py", "--set", "network.settings.widht=3")
    assert 'mine.py: unknown setting "widht": did you mean "width"?' in error
    assert not list_runs(Path("runs"))


def test_two_files_of_one_name_do_not_fit_into_one_run(mine: Path, folder: Path) -> None:
    (folder / "other").mkdir()
    other = folder / "other" / "mine.py"
    other.write_text(BODY.replace("tanh", "sin"))
    save_policy_file(folder / "a.safetensors", policy_of(mine))
    with pytest.raises(UserError, match=r"differs from .*another policy's: give the two files two names"):
        save_policy_file(folder / "b.safetensors", policy_of(other))


def test_the_file_is_kept_as_it_was_when_it_ran(mine: Path, folder: Path) -> None:
    policy = policy_of(mine)
    obs, hidden = {"vector": torch.randn(3, 2, 4)}, policy.initial_hidden(2)
    mine.write_text("changed")
    save_policy_file(folder / "policy.safetensors", policy)
    again = load_policy_file(folder / "policy.safetensors")
    assert torch.equal(policy(obs, hidden)[0].params()["logits"], again(obs, hidden)[0].params()["logits"])
    assert again.spec.network.kind == str(folder / "bodies" / "mine.py")


def test_a_latent_may_have_a_body_of_ones_own(mine: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    latent = LatentSpec((0, 1), (2, 3), NetworkConfig(kind=str(mine), settings={"width": 7}), 2)
    policy = Policy(PolicySpec(view("state"), DISCRETE, NetworkConfig(), latent))
    save_policy_file(folder / "policy.safetensors", policy)
    forget(monkeypatch)
    with pytest.raises(UserError, match=r"bodies/mine\.py: read it, then add --trust"):
        load_policy_file(folder / "policy.safetensors")
    again = load_policy_file(folder / "policy.safetensors", trusted=True)
    assert again.encoder.inner.output_size == 7


def test_a_header_names_no_file_elsewhere(mine: Path, folder: Path) -> None:
    save_policy_file(folder / "policy.safetensors", policy_of(mine))
    data = (folder / "policy.safetensors").read_bytes()
    assert str(folder).encode() not in data
    (folder / "o.py").write_text(BODY)
    (folder / "policy.safetensors").write_bytes(data.replace(b"mine.py", b"../o.py"))
    with pytest.raises(UserError, match="is damaged"):
        load_policy_file(folder / "policy.safetensors", trusted=True)
