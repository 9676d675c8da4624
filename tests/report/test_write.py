"""Pages of runs and comparisons: what stands there, that all of it is text, and that a browser shows it."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_runs
from browsers import Chromium, Firefox, program_of
from pairs_data import write
from PIL import Image

from tscli.cli.app import main
from tscli.report.write import write_page
from tscli.runs import Run, Session, find_run

DOCS = Path(__file__).resolve().parents[2] / "docs" / "pages"


class Elements(HTMLParser):
    """The elements of a page by name, and its text without its script and style."""

    def __init__(self, path: Path):
        super().__init__()
        self.names: list[str] = []
        self.texts: list[str] = []
        self.sources: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        if self.names and self.names[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def test_a_page_tells_who_learnt_from_whom_and_how_good_it_is(measured: Run) -> None:
    page = Elements(write_page(measured))
    for words in (
        "Its teacher, 0001-train-teacher-cartpole-seed3",
        "320.0 (95 % interval 318.0 to 322.0)",
        "75.0 %",
        "160",
    ):
        assert words in page.text
    assert "tscli distill --method dagger --teacher 0001-train-teacher-cartpole-seed3" in page.text


def test_curves_keep_their_values_and_the_teachers_level_is_a_line_among_them(measured: Run) -> None:
    text = write_page(measured).read_text()
    charts = [json.loads(re.sub("&quot;", '"', one)) for one in re.findall(r'data-points="([^"]*)"', text)]
    (returns,) = (chart for chart in charts if len(chart["series"]) == 2)
    assert returns["series"][0] == {"label": "while training", "x": [64, 192], "y": [20, 300]}
    assert returns["series"][1]["label"] == "0001-train-teacher-cartpole-seed3"
    assert returns["series"][1]["y"] == [480, 480]


def test_hostile_text_is_shown_as_text_and_nothing_is_fetched(measured: Run) -> None:
    page = Elements(write_page(measured))
    assert page.names.count("script") == 1, "the page's own"
    assert "<script>document.title='owned'</script>" in page.text
    assert all(source.startswith("data:") for source in page.sources)


def test_a_dataset_is_shown_with_its_entries_by_name_and_unit(session: Session) -> None:
    teacher = toy_runs.teacher(session)
    with toy_runs.start(session, "collect", parents={"teacher": teacher}) as run:
        write(run.path / "pairs", num_envs=4, steps=150)
        made = run.finish({"steps": 600}, holds=("pairs",))
    page = Elements(write_page(made))
    assert "state: a" in page.text
    assert "600" in page.text
    assert "Where do they part?" in page.text, "half of the steps are a student's"


def test_the_command_writes_the_page_of_the_newest_run_and_refuses_what_is_none(
    measured: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = ["--runs-dir", str(measured.path.parent)]
    assert main(["report", "--json", *runs]) == 0
    assert json.loads(capsys.readouterr().out) == {"pages": [str(measured.path / "report.html")]}
    assert main(["report", "7", *runs]) == 2
    assert 'no run "7"' in capsys.readouterr().err


def comparison(session: Session) -> Run:
    """A comparison of two methods with two seeds, of which one has a cell in place."""
    cell = Session(runs_dir=session.runs_dir / "cells" / "abc")
    learnt = toy_runs.teacher(cell)
    with toy_runs.start(cell, "eval", parents={"policy": learnt}) as run:
        last = run.finish({}, holds=("report",))
    row = {"swept": {}, "seeds_in": 2, "sd": 1.0, "iqm": None, "teacher": None, "gap": None, "return": 6.0}
    row |= {"env_steps": 100.0, "seconds": 3.0}
    rows = [
        row
        | {"label": "weak", "method": "weak", "mean": 6.0, "values": [5.0, 7.0], "interval": [4.0, 8.0]}
        | {"measures": {"teacher": {"speed [m/s]": [1.0, 2.0]}}},
        row
        | {"label": "<i>strong", "method": "strong", "mean": 20.0, "values": [19.0, 21.0], "interval": [18.0, 22.0]},
    ]
    outcome = {"method": "weak", "seed": 0, "return": 5.0, "problem": "", "eval cell": f"elsewhere/abc/{last.name}"}
    data = {"task": "toy", "command": "tscli compare toy", "metric": "return", "episodes": 5, "seeds": [0, 1]}
    data |= {"rows": rows, "outcomes": [outcome], "notes": ["Gap: teacher less student."], "failed": []}
    with toy_runs.start(session, "compare") as run:
        (run.path / "results.json").write_text(json.dumps(data))
        return run.finish({}, holds=("report",))


def test_a_comparison_says_what_it_found_and_links_to_its_cells(session: Session) -> None:
    run = comparison(session)
    page = Elements(write_page(run))
    assert "<i>strong has the highest mean return, 20.0, before weak with 6.0; no other interval overlaps" in page.text
    assert "speed [m/s]" in page.text and "1.5 ± 0.707" in page.text
    links = [source for source in page.sources if not source.startswith("data:")]
    assert links == ["../cells/abc/0002-eval-cartpole-seed3/report.html"]
    assert (run.path / links[0]).is_file()


def test_a_page_that_is_written_elsewhere_has_no_links(session: Session, tmp_path: Path) -> None:
    run, path = comparison(session), tmp_path / "sent.html"
    runs = ["--runs-dir", str(run.path.parent)]
    assert main(["report", "--to", str(path), *runs]) == 0
    assert all(source.startswith("data:") for source in Elements(path).sources)
    assert not (run.path / "report.html").exists()
    assert main(["report", "1", str(run.number), "--to", str(path), *runs]) == 2
    policy = next(run.path.parent.glob("cells/abc/*/policy.safetensors"))
    for other in (path, tmp_path / "none" / "page.html", policy, policy.with_name("page.html"), tmp_path):
        assert main(["report", "--to", str(other), *runs]) == 2
    assert main(["report", "--to", str(path), "--force", *runs]) == 0


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.html")), ids=lambda path: path.stem)
def test_the_pages_in_the_docs_are_small_and_hold_all_that_they_need(path: Path) -> None:
    page, text = Elements(path), path.read_text(encoding="utf-8")
    assert path.stat().st_size < 1_500_000
    assert all(source.startswith("data:") for source in page.sources)
    assert not re.findall(r"/(?:home|root|tmp|work|Users)/[^,]*", re.sub(r"base64,[\w+/=]*", "", text)), "a path"
    assert f"docs/pages/{path.name}" in (DOCS.parent / "report.md").read_text(encoding="utf-8"), "what made it"


def opened(kind: type[Chromium] | type[Firefox], folder: Path) -> Iterator[Any]:
    """A browser, where it is installed."""
    program = program_of(kind)
    if program is None:
        pytest.skip(f"no {kind.__name__} is installed here")
    browser = kind(program, folder / "user")
    yield browser
    browser.close()


@pytest.fixture(params=[Chromium, Firefox], ids=["chromium", "firefox"])
def browser(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Chromium | Firefox]:
    """Each of those that are installed here."""
    yield from opened(request.param, tmp_path)


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Chromium]:
    """That one alone, whose window can be told its width."""
    yield from opened(Chromium, tmp_path)


def test_a_browser_opens_the_page_without_an_error_or_a_request_and_scrubs(
    measured: Run, browser: Chromium | Firefox
) -> None:
    address = write_page(measured).as_uri()
    browser.open(address)
    assert not [asked for asked in browser.requests if asked != address]
    assert not browser.complaints
    assert browser.run("document.title") == "0003-eval-cartpole-seed3: tscli", "no script of a stranger has run"
    assert "<script>" in browser.run("document.querySelector('option').textContent")
    assert browser.run("document.querySelectorAll('svg .pointer').length") == 2
    said = "document.querySelector('.player-said').textContent"
    assert browser.run(said) == "step 0 of 40"
    key = "document.querySelector('.player').dispatchEvent(new KeyboardEvent('keydown', {key: '%s', shiftKey: %s}))"
    browser.run(key % ("ArrowRight", "true"))
    browser.run(key % ("ArrowLeft", "false"))
    assert browser.run(said) == "step 9 of 40"
    browser.run("document.querySelector('.worst').click()")
    assert browser.run(said) == "step 39 of 40", "where the two are furthest apart"
    assert browser.run("document.querySelector('.player img').naturalWidth") == 90
    assert not browser.complaints


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_stands_out_of_a_window_and_dark_is_dark(measured: Run, chromium: Chromium, width: int) -> None:
    chromium.open(write_page(measured).as_uri())
    for dark in (False, True):
        chromium.window(width, dark=dark)
        assert chromium.run("document.documentElement.scrollWidth") == width
        with Image.open(io.BytesIO(chromium.picture())) as picture:
            corner = np.asarray(picture.convert("L"))[2, 2]
        assert (corner < 100) == dark


def test_a_run_in_a_folder_that_lost_its_parent_still_gets_a_page(measured: Run) -> None:
    shutil.rmtree(measured.path.parent / "0001-train-teacher-cartpole-seed3")
    page = Elements(write_page(find_run(measured.path.parent, "3")))
    assert "320.0 (95 % interval 318.0 to 322.0)" in page.text
