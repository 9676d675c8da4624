"""The command line: flags, where settings come from, errors in one line, and tscli's own commands."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy_scripts import BARE, TASK, write_scripts

import tscli
from tscli.cli import app as cli
from tscli.cli.app import main, normalize
from tscli.cli.commands import app
from tscli.cli.doctor import version_fits
from tscli.cli.pages import OWN_COMMANDS
from tscli.config import UserError
from tscli.launch import scripts
from tscli.runs import find_run, list_runs

RUNS = Path("runs")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with toy scripts instead of the shipped ones."""
    folders = write_scripts(tmp_path)
    monkeypatch.setattr(scripts, "script_folders", lambda: folders)
    monkeypatch.delenv("TSCLI_RUNS", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (work / "toy.yaml").write_text(TASK)
    (work / "bare.yaml").write_text(BARE)
    return work


def error_of(capsys: pytest.CaptureFixture[str], *args: str, code: int = 2) -> str:
    """Run a command that fails, and give its error line."""
    assert main(list(args)) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def config_of(*args: str) -> dict:
    """Run a command and give the settings that its run was made with."""
    assert main([*args, "--quiet"]) == 0
    return list_runs(RUNS)[-1].config


# --- settings ---------------------------------------------------------------------------------------------------------


def test_later_places_win(folder: Path) -> None:
    assert config_of("train-teacher", "bare.yaml")["num_envs"] == 4
    assert config_of("train-teacher", "toy.yaml")["num_envs"] == 8
    (folder / "own.yaml").write_text("num_envs: 16\nlr: 0.02\n")
    preset = ("train-teacher", "toy.yaml", "--preset", "big")
    assert config_of(*preset)["num_envs"] == 64
    with_file = (*preset, "--config", "own.yaml")
    assert config_of(*with_file)["num_envs"] == 16
    with_set = (*with_file, "--set", "num_envs=32", "--set", "lr=0.03")
    assert config_of(*with_set)["num_envs"] == 32
    config = config_of(*with_set, "--num-envs", "2")
    assert (config["num_envs"], config["lr"], config["network"]["kind"]) == (2, 0.03, "rnn")


def test_a_stage_without_a_task_inherits_its_parents_and_a_method_wins_over_its_command(folder: Path) -> None:
    for command in (["train-teacher", "toy.yaml"], ["collect"]):
        assert main([*command, "--quiet"]) == 0
    assert config_of("distill")["epochs"] == 7
    assert config_of("distill", "--method", "slow")["epochs"] == 9
    assert config_of("distill", "--method=slow", "--epochs", "2")["epochs"] == 2


def test_a_method_passes_over_what_a_task_says_for_another_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "toy.yaml").write_text(TASK.replace("epochs: 7", "epochs: 7, slow_weight: 4"))
    for command in (["train-teacher", "toy.yaml"], ["collect"]):
        assert main([*command, "--quiet"]) == 0
    assert "slow_weight" not in config_of("distill")
    assert config_of("distill", "--method", "slow")["slow_weight"] == 4
    (folder / "toy.yaml").write_text(TASK.replace("epochs: 7", "epochs: 7, slow_wait: 4"))
    assert 'unknown setting "slow_wait" in task toy, stages.distill' in error_of(capsys, "distill")


def test_strings_become_what_the_config_says() -> None:
    config = config_of(
        *("train-teacher", "bare.yaml", "--network.hidden", "32,16", "--no-anneal-lr", "--target-kl", "none"),
        *("--critic", "gru", "--critic.memory", "5", "--set", "network.kind=history", "--network.normalize"),
    )
    assert (config["network"]["hidden"], config["network"]["kind"]) == ([32, 16], "history")
    assert (config["anneal_lr"], config["target_kl"]) == (False, None)
    assert (config["critic"]["kind"], config["critic"]["memory"]) == ("gru", 5)


def test_the_shorthand_of_a_network_keeps_the_scripts_other_choices() -> None:
    network = config_of("train-teacher", "bare.yaml", "--network", "rnn")["network"]
    assert (network["kind"], network["hidden"]) == ("rnn", [8])


def test_flags_may_be_written_with_underscores() -> None:
    assert config_of("train-teacher", "bare.yaml", "--num_envs=3")["num_envs"] == 3


def test_a_command_without_runs_takes_several_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "1", "2", "3", "--scale", "10"]) == 0
    assert capsys.readouterr().out == "60\n"


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["trian-teacher"], 'did you mean "train-teacher"'),
        (["teacher"], 'did you mean "train-teacher"'),
        (["mine.py"], "tscli run mine.py"),
        (["train-teacher"], "TASK is missing"),
        (["train-teacher", "carpole"], 'did you mean "cartpole"'),
        (["train-teacher", "a", "b"], "unexpected extra argument"),
        (["train-teacher", "bare.yaml", "--lrr", "1"], 'did you mean "--lr"'),
        (["train-teacher", "bare.yaml", "--critic.memmory", "1"], 'did you mean "--critic.memory"'),
        (["train-teacher", "bare.yaml", "--lr"], "requires an argument"),
        (["train-teacher", "bare.yaml", "--lr", "-1"], "--lr '-1': input should be greater than 0"),
        (["train-teacher", "bare.yaml", "--network.kind", "rnnn"], "--network.kind 'rnnn'"),
        (["train-teacher", "bare.yaml", "--set", "lr"], "is no assignment"),
        (["train-teacher", "bare.yaml", "--set", "lrr=1"], 'unknown setting "lrr" in --set: did you mean "lr"'),
        (["train-teacher", "bare.yaml", "--set", "lr=2"], "--set: lr '2': input should be less than or equal to 1"),
        (["train-teacher", "bare.yaml", "--set", "lr.x=2"], "lr has no settings of its own"),
        (["train-teacher", "bare.yaml", "--set", "network.hiden=2"], 'did you mean "network.hidden"'),
        (["train-teacher", "bare.yaml", "--config", "no.yaml"], "cannot read no.yaml"),
        (["train-teacher", "bare.yaml", "--preset", "x"], 'has no preset "x"'),
        (["train-teacher", "toy.yaml", "--preset", "bigg"], 'did you mean "big"'),
        (["distill", "--method", "slwo"], 'did you mean "slow"'),
        (["distill", "--set", "method=slow"], "use --method"),
        (["collect"], "no finished run in runs holds a teacher's policy"),
        (["collect", "--preset", "x"], "--preset x needs a task"),
        (["train-teacher", "--resume"], "no unfinished train-teacher run"),
        (["runs", "7"], "there are no runs in runs"),
        (["cp", "distil", "x.py"], 'did you mean "distill"'),
        (["cp", "collect", "x.txt"], "does not end in .py"),
        (["run", "--help-me"], "unknown option --help-me"),
        (["train-teacher", "bare.yaml", "--lr", "0.25"], "the lamp is off"),
    ],
)
def test_bad_input_is_one_line_and_code_2(capsys: pytest.CaptureFixture[str], args: list[str], words: str) -> None:
    assert words in error_of(capsys, *args)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lrr: 1", 'unknown setting "lrr" in own.yaml: did you mean "lr"'),
        ("network: {hiden: 3}", 'unknown setting "network.hiden" in own.yaml'),
        ("network: rnnn", "own.yaml: network.kind 'rnnn'"),
        ("lr: 7", "own.yaml: lr 7: input should be less than or equal to 1"),
        ("- lr", "must be `name: value` pairs"),
        ("lr: [", "is not valid YAML"),
    ],
)
def test_a_wrong_settings_file_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    (folder / "own.yaml").write_text(text)
    assert words in error_of(capsys, "train-teacher", "bare.yaml", "--config", "own.yaml")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("train-teacher: {lr", "train-techer: {lr", 'unknown command "train-techer" in task toy, stages: did you mean'),
        ("{lr: 0.01", "{lrr: 0.01", 'unknown setting "lrr" in task toy, stages.train-teacher: did you mean "lr"'),
        ("{lr: 0.01", "{lr: 9", "task toy, stages.train-teacher: lr 9: input should be less"),
    ],
)
def test_a_wrong_task_file_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, words: str
) -> None:
    (folder / "toy.yaml").write_text(TASK.replace(old, new))
    assert words in error_of(capsys, "train-teacher", "toy.yaml")


def test_a_crash_is_code_1_and_its_traceback_comes_with_debug(capsys: pytest.CaptureFixture[str]) -> None:
    crash = ["train-teacher", "bare.yaml", "--lr", "0.666", "--quiet"]
    assert main(crash) == 1
    err = capsys.readouterr().err
    assert err == "error: ValueError: a bug in the script\nrun again with --debug for the traceback\n"
    assert main([*crash, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_code_130_and_the_run_can_be_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-teacher", "bare.yaml", "--lr", "0.5", "--quiet"]) == 130
    assert list_runs(RUNS)[-1].status == "stopped"
    line = error_of(capsys, "train-teacher", "--resume", "--lr", "0.4", "--quiet")
    assert "lr is 0.5 in 0001-train-teacher-bare-seed1, not 0.4" in line.splitlines()[-1]
    assert main(["train-teacher", "bare.yaml", "--resume", "1", "--quiet"]) == 0
    assert [(run.number, run.status, run.config["lr"]) for run in list_runs(RUNS)] == [(1, "finished", 0.5)]


def test_resume_takes_the_method_of_the_run() -> None:
    for command in (["train-teacher", "bare.yaml"], ["collect"]):
        assert main([*command, "--quiet"]) == 0
    assert main(["distill", "--method", "slow", "--epochs", "0", "--quiet"]) == 130
    assert main(["distill", "--resume", "--quiet"]) == 0
    newest = list_runs(RUNS)[-1]
    assert (newest.method, newest.status, newest.number) == ("slow", "finished", 3)


def test_resume_takes_a_run_only_where_one_follows(folder: Path) -> None:
    assert normalize(["x", "--resume"]) == ["x", "--resume="]
    assert normalize(["x", "--resume", "--lr", "1"]) == ["x", "--resume=", "--lr", "1"]
    assert normalize(["x", "--resume", "cartpole"]) == ["x", "--resume=", "cartpole"]
    assert normalize(["x", "--resume", "0007-x", "--a_b=c_d"]) == ["x", "--resume=0007-x", "--a-b=c_d"]
    (folder / "elsewhere").mkdir()
    assert normalize(["--resume", "elsewhere"]) == ["--resume=elsewhere"]
    assert normalize(["--", "--a_b"]) == ["--", "--a_b"]


# --- pages ------------------------------------------------------------------------------------------------------------


def test_help_has_every_flag_with_default_and_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-teacher", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for words in (
        "tscli train-teacher TASK [options]",
        "--lr X Learning rate. [default 0.001; above 0; at most 1]",
        "--[no-]anneal-lr Whether lr falls. [default on]",
        "--loss CHOICE The loss. [default mse; or huber]",
        "--network.hidden N,N",
        "[default 8; at least 1]",
        "With --critic.hidden and all the others of --network. [default none; one of gru, history, mlp, rnn]",
        "--resume [RUN]",
        "--seed N",
        "tscli cp train-teacher mine.py",
    ):
        assert words in out, words
    assert "--critic.memory" not in out


def test_help_of_a_family_is_that_of_the_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--quick-weight" in out and "--method quick|slow" in out
    assert main(["distill", "--method", "slow", "--help"]) == 0
    assert "--slow-weight" in capsys.readouterr().out


def test_the_first_page_lists_commands_in_order_and_says_what_is_next(capsys: pytest.CaptureFixture[str]) -> None:
    expected = ["train-teacher", "collect", "distill", "eval", "describe", *OWN_COMMANDS]
    assert main([]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines() if line.startswith("  ")] == expected
    assert "Next: tscli train-teacher cartpole" in out
    for command, following in (("train-teacher bare.yaml", "collect"), ("collect", "distill"), ("distill", "eval")):
        assert main([*command.split(), "--quiet"]) == 0
        capsys.readouterr()
        assert main([]) == 0
        assert f"Next: tscli {following}" in capsys.readouterr().out


def test_a_command_says_what_it_wrote_and_what_is_next(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-teacher", "bare.yaml"]) == 0
    err = " ".join(capsys.readouterr().err.split())
    assert err.endswith("wrote runs/0001-train-teacher-bare-seed1, return 0.100 next: tscli collect")


def test_the_list_of_our_own_commands_is_that_of_the_first_page() -> None:
    described = {
        str(info.name or info.callback.__name__): str(info.callback.__doc__).splitlines()[0]
        for info in app.registered_commands
        if info.callback is not None
    }
    assert described == OWN_COMMANDS


def test_runs_are_shown_as_a_tree_and_one_in_detail(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("train-teacher bare.yaml", "collect", "distill", "train-teacher bare.yaml --seed 2"):
        assert main([*command.split(), "--quiet"]) == 0
    capsys.readouterr()
    assert main(["runs"]) == 0
    out = capsys.readouterr().out
    rows = [line.split("  ")[0] for line in out.splitlines() if "bare" in line]
    assert rows == ["1 train-teacher", "└─ 2 collect", "", "4 train-teacher"]
    assert "   └─ 3 distill quick" in out and "return 50.0" in out
    assert main(["runs", "3"]) == 0
    out = capsys.readouterr().out
    assert "0002-collect-bare-seed1" in out and "student.kind" in out and "manifest.json" in out
    assert main(["runs", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [run["parents"] for run in listed][1] == ["0001-train-teacher-bare-seed1"]
    assert main(["runs", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["seed"] == 2


def test_what_has_no_result_is_listed_with_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-teacher", "bare.yaml", "--quiet", "--lr", "0.5"]) == 130
    assert main(["train-teacher", "bare.yaml", "--quiet", "--lr", "0.25"]) == 2
    capsys.readouterr()
    assert main(["runs"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "bare" in line]
    assert [row[4] for row in rows] == ["stopped", "failed"]


def test_a_number_that_no_run_has_names_the_newest_ones(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(5):
        assert main(["train-teacher", "bare.yaml", "--quiet"]) == 0
    error = error_of(capsys, "runs", "77")
    newest = ", ".join(f"000{number}-train-teacher-bare-seed1" for number in (5, 4, 3))
    assert f'no run "77" in runs: it has 5, the newest are {newest}; `tscli runs` lists all' in error


def test_an_lstm_is_called_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    error = error_of(capsys, "train-teacher", "bare.yaml", "--network", "lstm")
    assert "--network.kind 'lstm': the LSTM is called rnn here" in error


def test_a_full_disk_is_one_line_wherever_it_is_met(capsys: pytest.CaptureFixture[str]) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/data/film.gif")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "_dispatch", full)
        error = error_of(capsys, "runs")
    assert error.strip() == "error: the disk is full (/data/film.gif): free some space, then go on with --resume"


def test_a_task_is_described_with_the_sizes_of_its_views(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "cartpole", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert {name: view["size"] for name, view in described["views"].items()}["partial"] == 3
    assert described["groups"]["state"]["shape"] == [4]
    assert main(["tasks"]) == 0
    assert "partial (3)" in capsys.readouterr().out


# --- scripts of one's own ---------------------------------------------------------------------------------------------


def test_a_copied_script_runs_with_its_flags_and_is_never_overwritten(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cp", "train-teacher", "mine.py"]) == 0
    assert "tscli run mine.py" in capsys.readouterr().out
    mine = folder / "mine.py"
    mine.write_text(mine.read_text().replace("Envs.", "Changed."))
    assert "exists" in error_of(capsys, "cp", "train-teacher", "mine.py")
    assert main(["run", "mine.py", "--help"]) == 0
    assert "Changed." in capsys.readouterr().out
    assert config_of("run", "mine.py", "bare.yaml", "--num-envs", "5")["num_envs"] == 5
    assert config_of("run", "mine.py", "toy.yaml")["num_envs"] == 8, "a copy keeps what tasks say about its command"
    assert main(["cp", "train-teacher", "mine.py", "--force"]) == 0
    assert "Changed." not in mine.read_text()


def test_a_setting_named_like_a_common_flag_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "from tscli.config import Config as Base\nclass Config(Base):\n    quiet: bool = False\n"
    (folder / "mine.py").write_text(text)
    assert 'cannot be called "quiet"' in error_of(capsys, "run", "mine.py")


# --- from Python ------------------------------------------------------------------------------------------------------


def test_a_stage_runs_from_python() -> None:
    run = tscli.run("train-teacher", task="bare.yaml", seed=3, network={"kind": "gru"}, runs_dir="elsewhere")
    assert (run.status, run.seed, run.config["network"]["kind"]) == ("finished", 3, "gru")
    assert find_run(Path("elsewhere"), "1").path == run.path
    with pytest.raises(UserError, match=r"tscli.run\('train-teacher'\): did you mean \"seed\""):
        tscli.run("train-teacher", task="bare.yaml", sed=3)
    with pytest.raises(UserError, match="makes no run"):
        tscli.run("describe", numbers=[1])


def test_the_package_has_a_version_and_no_other_attributes() -> None:
    assert tscli.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="nothing"):
        _ = tscli.nothing


# --- a process of its own ---------------------------------------------------------------------------------------------


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom tscli.cli.app import main\n"
        "assert main(['--help']) == 0\nfirst = set(sys.modules)\n"
        "assert main(['train-teacher', '--help']) == 0\n"
        "assert main(['compare', '--help']) == 0\n"
        "assert main(['train-teacher', 'cartpole', '--lr', '-1']) == 2\n"
        "heavy = {'torch', 'gymnasium', 'h5py', 'numpy', 'matplotlib'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)), sorted({'pydantic', 'typer'} & first))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "loaded: [] []"


def test_a_closed_pipe_is_no_crash() -> None:
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        [sys.executable, "-m", "tscli", "--help"], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (result.returncode, result.stderr) == (1, "")


def test_versions_are_compared_by_number() -> None:
    assert version_fits("2.13.0+cpu", ">=2.6") and version_fits("2.6", ">=2.6,<3")
    assert not version_fits("2.5.9", ">=2.6") and not version_fits("3.0", ">=2.6,<3")
    assert version_fits("1.4.2", "~=1.4.0") and not version_fits("1.5", "~=1.4.0")
