"""The page of a search for sensors."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path

import pytest
from sensor_results import results_of
from toy_runs import start

from tscli.config import UserError
from tscli.report.write import write_page
from tscli.runs import Session
from tscli.sensors import picture, words


def test_it_has_the_sentence_the_picture_and_every_student(tmp_path: Path) -> None:
    found = results_of({"ab": 100.0, "a": 99.0, "b": 3.0}, {"ab": 100.0, "a": 20.0, "b": 3.0})
    with start(Session(tmp_path), "sensors", task="<script>alert(1)</script>") as run:
        words.write_files(found, "tscli sensors '<b>'", run.path)
        picture.draw(found, run.path)
        made = run.finish({}, holds=("report",))
    text = write_page(made).read_text(encoding="utf-8")
    assert "With memory (rnn) a loses nothing" in text and "data:image/png" in text
    assert "a with memory, kept: 99" in text and "0.5 sd (0.02 rad), not 0.7" in text
    assert "<b>" not in text and "&lt;b&gt;" in text


def test_one_that_was_stopped_says_how_to_go_on(tmp_path: Path) -> None:
    with start(Session(tmp_path), "sensors") as run:
        made = run.finish({})
    with pytest.raises(UserError, match="tscli sensors --resume 1"):
        write_page(made)
