"""The report has the figures of the cells, as a table, as JSON and CSV, and as pictures."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
from comparisons import TOYS, report_of
from PIL import Image
from stage_tools import RUNS

from tscli.cli.app import main
from tscli.runs import list_runs

pytestmark = pytest.mark.usefixtures("folder")


@pytest.mark.usefixtures("in_process")
def test_the_report_has_the_figures_of_the_cells(toys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TOYS, "--methods", "weak,strong", "--seeds", "5"]) == 0
    table = capsys.readouterr().out
    (run,) = list_runs(RUNS)
    assert run.status == "finished" and run.holds == ("report",)
    report = report_of(run.path)
    weak, strong = report["rows"]
    # weak: level x (1 + seed) = 1, 2, 3, 4, 5; the teacher has 20
    assert (weak["mean"], weak["sd"], weak["iqm"]) == (3.0, pytest.approx(math.sqrt(2.5)), 3.0)
    assert (weak["teacher"], weak["gap"], weak["env_steps"]) == (20.0, 17.0, 92.0)
    assert (strong["mean"], strong["gap"], strong["allowed_steps"]) == (9.0, 11.0, 100)
    assert weak["values"] == [1.0, 2.0, 3.0, 4.0, 5.0]
    half = 2.776445 * math.sqrt(2.5 / 5)  # Student's t of 4 degrees of freedom
    assert weak["interval"] == pytest.approx([3 - half, 3 + half])
    assert any("by Student's t" in note for note in report["notes"])
    assert "3.00 ± 1.58" in table and "9.00 ± 4.74" in table
    assert run.metrics == {"return/weak": 3.0, "return/strong": 9.0}
    with open(run.path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["seed"], row["return"]) for row in rows[5:7]] == [
        ("strong", "0", "3.0"),
        ("strong", "1", "6.0"),
    ]
    assert rows[0]["near"] == "0.5" and rows[0]["success_rate"] == ""
    assert (Path(rows[9]["learn cell"]) / "manifest.json").exists()
    text = (run.path / "table.md").read_text()
    assert (
        "| weak | 5 | 3.00 ± 1.58 | 1.04 to 4.96 | 1.00, 2.00, 3.00, 4.00, 5.00 | 3.00 |" in text
        and "tscli compare cartpole --methods weak,strong" in text
    )
    assert weak["measures"] == {"student": {"speed [m/s]": [0.0, 2.0, 4.0, 6.0, 8.0]}}
    assert rows[1]["speed [m/s]"] == "2.0"
    assert "| method | policy | speed [m/s] |\n|---|---|---:|\n| weak | student | 4 ± 3.16 |" in text
    for name in ("bars.png", "curves.png"):
        assert f"]({name})" in text
        with Image.open(run.path / name) as image:
            assert image.format == "PNG" and image.width > 500


@pytest.mark.usefixtures("in_process", "no_pictures")
def test_the_table_says_where_each_stage_trains(toys: Path) -> None:
    Path("easy.yaml").write_text("extends: cartpole\nteacher_env: {max_episode_steps: 9}\n")
    own = "own: [{learn.py: {train_in: teacher_env}}, measure.py]\nplain: [learn.py, measure.py]\n"
    Path("own.yaml").write_text(own)
    source = (toys / "learn.py").read_text()
    field = '    train_in: str = Field("env", description="Where.")\n    level'
    (toys / "learn.py").write_text(source.replace("    level", field, 1))
    words = ("--methods", "own,plain", "--methods-file", "own.yaml", "--seeds", "1", "--quiet")
    assert main(["compare", "easy.yaml", *words]) == 0
    (run,) = list_runs(RUNS)
    rows = report_of(run.path)["rows"]
    assert [row["trains_in"] for row in rows] == [[["learn", "teacher_env"]], [["learn", "env"]]]
    text = (run.path / "table.md").read_text()
    assert "| own | learn.py (train_in teacher_env), measure.py | learn: teacher_env |" in text
    header = next(line for line in text.splitlines() if line.startswith("| method | seeds"))
    assert " | trains in | env steps |" in header


@pytest.mark.usefixtures("in_process")
def test_the_sweep_is_drawn_and_the_report_is_printed_as_json(toys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ("--methods", "weak,strong", "--seeds", "1", "--sweep", "learn.level=1,2", "--json")
    assert main([*TOYS, *args]) == 0
    printed = json.loads(capsys.readouterr().out)
    (run,) = list_runs(RUNS)
    assert printed == report_of(run.path)
    assert [row["label"] for row in printed["rows"]] == ["weak level=1", "weak level=2", "strong"]
    assert [row["interval"] for row in printed["rows"]] == [None] * 3, "one seed says nothing about others"
    assert (run.path / "sweep.png").stat().st_size > 0
