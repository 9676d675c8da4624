"""A network's configuration is made of its bodies' own, and written so that older versions read it."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from tscli.config import Config, NetworkConfig, UserError, one_line
from tscli.config.network import BODIES, read_bodies, union
from tscli.files import file_hash
from tscli.light import light_class
from tscli.networks.bodies import body_config

WRITTEN = {
    "kind": "gru",
    **{"hidden": [8], "activation": "elu", "memory": 4, "memory_layers": 2, "hidden_after": [3], "history": 5},
    **{"normalize": False, "normalize_clip": None, "std": "network", "init_std": 0.5, "squash": True},
    "distribution": "gaussian",
}
BODY = "from tscli.config import Config\nclass BodyConfig(Config):\n    width: int = 3\n"


def line(**values: object) -> str:
    with pytest.raises(ValidationError) as caught:
        NetworkConfig.model_validate(values)
    return one_line(caught.value, NetworkConfig)


def test_settings_that_an_older_version_wrote_are_read_and_written_alike_in_its_order() -> None:
    config = NetworkConfig.model_validate(WRITTEN)
    assert list(config.model_dump(mode="json").items()) == list(WRITTEN.items())
    assert list(NetworkConfig().model_dump()) == list(WRITTEN)


def test_each_body_gets_its_own_settings_alone() -> None:
    config = NetworkConfig.model_validate(WRITTEN)
    for kind, model in BODIES.items():
        found = body_config(config.model_copy(update={"kind": kind}))
        assert type(found).__module__ == f"tscli.networks.bodies.{kind}"
        given = found.model_dump(mode="json")
        assert given.keys() == model.model_fields.keys()
        assert {name: value for name, value in given.items() if name in WRITTEN} == {
            name: WRITTEN[name] for name in model.model_fields if name in WRITTEN
        }


class Narrow(Config):
    """One meaning of a name."""

    width: int = Field(3, ge=1, description="Width.")


class Wide(Config):
    """Another one."""

    width: int = Field(3, ge=2, description="Width.")
    depth: int = Field(1, description="Depth.")


def test_a_setting_that_two_bodies_share_has_one_meaning() -> None:
    assert list(union({"a": Wide, "b": Wide})) == ["width", "depth"]
    with pytest.raises(TypeError, match='the bodies a and c differ in "width": make it the same, or rename one'):
        union({"a": Narrow, "c": Wide})


def test_a_body_whose_settings_need_torch_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "light.py").write_text("import heavy_module_that_is_not_there\n" + BODY)
    assert [config().model_dump() for config in read_bodies(tmp_path).values()] == [{"width": 3}]
    (tmp_path / "heavy.py").write_text("import torch\n" + BODY.replace("= 3", "= torch.ones(3).numel()"))
    assert light_class(tmp_path / "heavy.py", "BodyConfig") is None
    with pytest.raises(TypeError, match=r"heavy\.py: BodyConfig has to be a Config"):
        read_bodies(tmp_path)


def test_a_kind_that_is_not_there_is_named_with_the_closest_one() -> None:
    assert line(kind="rnnn") == "--kind 'rnnn': there is no such body, did you mean \"rnn\"?"
    assert line(kind="zzzzz").endswith(
        "choose from: gru, history, mingru, mlp, rnn, tcn, tcn_flat, or a .py file of yours"
    )
    assert line(kind="LSTM") == "--kind 'LSTM': the LSTM is called rnn here"
    assert line(kind="none.py") == "--kind 'none.py': there is no such file"


def test_a_file_of_ones_own_is_held_to_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.py"
    path.write_text(BODY)
    config = NetworkConfig.model_validate({"kind": "./mine.py", "settings": {"width": "4"}})
    assert (config.kind, config.sha256, config.is_own) == (str(path), file_hash(path), True)
    written = config.model_dump(mode="json")
    assert list(written)[-2:] == ["settings", "sha256"] and NetworkConfig.model_validate(written) == config
    path.write_text(BODY + "\n")
    assert line(**written).endswith(f"{path} has changed since: restore it, or start anew")
    assert NetworkConfig.model_validate({**written, "kind": "mlp"}).sha256 == ""


def test_settings_of_ones_own_are_checked_by_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(BODY + "from tscli.networks.bodies import BaseBody\nclass Body(BaseBody): ...\n")
    assert body_config(NetworkConfig(kind=str(path), settings={"width": "4"})).model_dump() == {"width": 4}
    with pytest.raises(UserError, match=r'mine\.py: unknown setting "widht": did you mean "width"\?'):
        body_config(NetworkConfig(kind=str(path), settings={"widht": 4}))
    with pytest.raises(UserError, match=r"mine\.py: width 'a': input should be a valid integer"):
        body_config(NetworkConfig(kind=str(path), settings={"width": "a"}))
