"""Scripts are found by their file, read without running, and loaded by path."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from toy_scripts import TEACHER, write_scripts

from tscli.cli.flags import flags_of
from tscli.config import Config, StageConfig, UserError
from tscli.launch import scripts
from tscli.launch.scripts import find_script, find_scripts, light_config, load_script, read_script

SHIPPED = find_scripts()


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return write_scripts(tmp_path)


def one(tmp_path: Path, text: str) -> scripts.Script:
    path = tmp_path / "mine.py"
    path.write_text(text)
    return read_script(path)


def test_the_file_name_is_the_command_and_order_sorts(folders: list[Path]) -> None:
    found = find_scripts(folders)
    names = ["train-teacher", "collect", "distill-quick", "distill-slow", "eval", "describe"]
    assert [script.name for script in found] == names
    assert found[0].about == "Train a toy teacher."


def test_a_script_is_parsed_as_a_whole_once_until_it_changes(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []
    parse = ast.parse

    def counting(text: str, filename: str = "") -> ast.Module:
        parsed.append(Path(filename).name)
        return parse(text, filename)

    monkeypatch.setattr(ast, "parse", counting)
    find_scripts(folders)
    assert set(parsed) == {""}, "a list of commands takes the heads of their files"
    parsed.clear()
    for _ in range(2):
        for script in find_scripts(folders):
            light_config(script)
    assert sorted(filter(None, parsed)) == sorted({path.name for folder in folders for path in folder.glob("*.py")})
    path = folders[0] / "collect.py"
    path.write_text(path.read_text().replace("Collect toy pairs.", "Gather toy pairs."))
    assert find_script("collect", None, find_scripts(folders)).about == "Gather toy pairs."
    path.write_text('"""A word.\n\ndef f() begins no function here.\n"""\n' + path.read_text())
    assert find_script("collect", None, find_scripts(folders)).about == "A word."


def test_a_script_is_found_by_command_method_file_name_and_path(folders: list[Path]) -> None:
    found = find_scripts(folders)
    assert find_script("distill", None, found).method == "quick"
    assert find_script("distill", "slow", found).method == "slow"
    assert find_script("distill_slow", None, found).method == "slow"
    assert find_script("evaluate", None, found).command == "eval"
    assert find_script(str(folders[0] / "collect.py")).command == "collect"


@pytest.mark.parametrize(
    ("name", "method", "words"),
    [
        ("distil", None, 'did you mean "distill"'),
        ("distill", "slwo", 'did you mean "slow"'),
        ("collect", "slow", "has no methods"),
        ("nowhere.py", None, "no such script"),
    ],
)
def test_what_is_not_there_is_refused_with_a_hint(
    folders: list[Path], name: str, method: str | None, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        find_script(name, method, find_scripts(folders))


def test_a_file_of_settings_is_no_script(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("episodes: 4\n")
    with pytest.raises(UserError, match=r"does not end in \.py: settings go with --config"):
        read_script(path)


def test_two_scripts_of_one_name_are_refused(folders: list[Path]) -> None:
    (folders[1] / "train_teacher.py").write_text(TEACHER)
    with pytest.raises(UserError, match="are both `tscli train-teacher`"):
        find_scripts(folders)


def test_a_family_without_a_default_method_is_refused(folders: list[Path]) -> None:
    quick = folders[0] / "distill_quick.py"
    quick.write_text(quick.read_text().replace("DEFAULT_METHOD = True", ""))
    with pytest.raises(UserError, match="exactly one script with DEFAULT_METHOD"):
        find_scripts(folders)


def test_a_computed_command_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 1: COMMAND must be a plain str"):
        one(tmp_path, "COMMAND = 'a' + 'b'\n")


def test_a_script_that_is_no_python_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 2 is not valid Python"):
        one(tmp_path, "x = 1\ndef broken(:\n")


def test_a_script_without_main_is_refused(tmp_path: Path) -> None:
    script = one(tmp_path, "from tscli.config import Config as Base\nclass Config(Base):\n    a: int = 1\n")
    with pytest.raises(UserError, match="is no script"):
        load_script(script)


HEAVY = """
import heavy_module_that_is_not_there
from tscli.config import Config as Base
from pydantic import Field, field_validator

LIMIT = 3
CHOICES = (LIMIT, 4)

class InnerConfig(Base):
    depth: "int" = Field(LIMIT, ge=1)

class Helper(heavy_module_that_is_not_there.Thing):
    pass

class Config(Base):
    inner: InnerConfig = InnerConfig()
    width: int = Field(CHOICES[1])
    @field_validator("width")
    @classmethod
    def _even(cls, value):
        if value % 2:
            raise ValueError("width is even")
        return value
"""


def test_the_light_config_needs_no_heavy_import(tmp_path: Path) -> None:
    config = light_config(one(tmp_path, HEAVY))
    assert config().model_dump() == {"inner": {"depth": 3}, "width": 4}
    with pytest.raises(ValueError, match="width is even"):
        config.model_validate({"width": "3"})


def test_a_config_that_needs_a_heavy_module_loads_the_whole_script(tmp_path: Path) -> None:
    text = "import array\nimport numpy as np\nfrom tscli.config import Config as Base\n"
    text += "class Config(Base):\n    size: int = int(np.prod((2, 3)))\ndef main(config, session): ...\n"
    config = light_config(one(tmp_path, text))
    assert config.model_fields["size"].default == 6
    assert config.__module__.startswith("_tscli_full_")


def test_a_users_script_may_import_its_neighbour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "tscli_test_neighbour.py").write_text("SIZE = 5\n")
    text = "from tscli_test_neighbour import SIZE\nfrom tscli.config import Config as Base\n"
    text += "class Config(Base):\n    size: int = SIZE\ndef main(config, session): ...\n"
    assert load_script(one(tmp_path, text)).Config().size == 5


@pytest.mark.parametrize("script", SHIPPED, ids=lambda script: script.name)
def test_the_light_schema_of_every_script_is_its_full_one(script: scripts.Script) -> None:
    light, full = light_config(script), load_script(script).Config
    assert light.__module__.startswith("_tscli_light_"), "its help has to load the whole script"
    assert light.model_json_schema() == full.model_json_schema()


@pytest.mark.parametrize("script", SHIPPED, ids=lambda script: script.name)
def test_every_setting_has_one_sentence_of_help(script: scripts.Script) -> None:
    for flag in flags_of(light_config(script), script.command):
        text = flag.description
        assert len(text) > 5 and text.endswith(".") and "\n" not in text, f"{flag.option}: {text!r}"


@pytest.mark.parametrize("script", SHIPPED, ids=lambda script: script.name)
def test_every_script_keeps_to_the_form(script: scripts.Script) -> None:
    tree = ast.parse(script.path.read_text(encoding="utf-8"))
    names = {node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    assert {"Config", "main"} <= names
    assert script.about.endswith("."), "the docstring's first line is the command's help"
    assert script.path.stem not in sys.stdlib_module_names, "python stages/x.py would hide that module"
    assert issubclass(light_config(script), Config)
    if script.folder == "stages":
        text = script.path.read_text(encoding="utf-8")
        makes_a_run = "session.start(" in text or "with Training(" in text
        assert issubclass(light_config(script), StageConfig) == makes_a_run


@pytest.mark.parametrize("script", SHIPPED, ids=lambda script: script.name)
def test_no_flag_is_a_prefix_of_one_of_torchruns(script: scripts.Script) -> None:
    from torch.distributed.run import get_args_parser

    theirs = [option for action in get_args_parser()._actions for option in action.option_strings]
    for flag in flags_of(light_config(script), script.command):
        positional = isinstance(flag.field.json_schema_extra, dict) and flag.field.json_schema_extra.get("positional")
        clash = [option for option in theirs if option.startswith(flag.option)]
        assert positional or not clash, f"{flag.option} reads as {clash} to torchrun"
