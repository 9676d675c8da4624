"""What strings become, and what a user reads when they cannot."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field, ValidationError, model_validator

from tscli.config import Config, Network, NetworkConfig, ViewPart, did_you_mean, one_line


class Inner(Config):
    """Something nested."""

    widths: tuple[int, ...] = Field(default=(64,), description="Widths.")
    name: str = Field(default="x", description="A name.")


class Outer(Config):
    """A bit of everything."""

    lr: float = Field(1e-3, gt=0, description="Learning rate.")
    num_envs: int = Field(4, ge=1, description="Envs.")
    flag: bool = Field(True, description="A switch.")
    target: float | None = Field(None, description="May be none.")
    names: tuple[str, ...] = Field((), description="Names.")
    maybe: tuple[int, ...] | None = Field((1,), description="Numbers, or none.")
    inner: Inner = Field(Inner(), description="Nested.")
    network: Network = Field(NetworkConfig(), description="A body.")
    critic: Network | None = Field(None, description="A body, or none.")
    task: str = Field("cartpole", description="The task.")

    @model_validator(mode="after")
    def _divides(self) -> Outer:
        if self.num_envs == 13:
            raise ValueError("--num-envs 13 brings bad luck: use 12")
        return self


def line(**values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(values)
    text = one_line(caught.value, Outer)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("inner", {"widths": "64,32"}, Inner(widths=(64, 32))),
        ("inner", {"widths": "[64, 32]"}, Inner(widths=(64, 32))),
        ("inner", {"widths": "(64,)"}, Inner(widths=(64,))),
        ("inner", {"widths": ""}, Inner(widths=())),
        ("names", "a, b", ("a", "b")),
        ("maybe", "none", None),
        ("maybe", "3", (3,)),
        ("target", "None", None),
        ("target", "0.5", 0.5),
        ("task", "none", "none"),  # a string is only None where None is allowed
        ("lr", "1e-4", 1e-4),
        ("flag", "false", False),
        ("network", "rnn", NetworkConfig(kind="rnn")),
        ("network", {"kind": "gru", "hidden": "8"}, NetworkConfig(kind="gru", hidden=(8,))),
        ("critic", "history", NetworkConfig(kind="history")),
        ("critic", "none", None),
    ],
)
def test_strings_of_a_command_line_become_values(field: str, text: Any, value: Any) -> None:
    assert getattr(Outer.model_validate({field: text}), field) == value


def test_a_configuration_survives_yamls_plain_data() -> None:
    config = Outer.model_validate({"network": "rnn", "maybe": "none", "names": "a,b"})
    assert Outer.model_validate(config.model_dump(mode="json")) == config


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Outer().lr = 1.0  # type: ignore[misc]


def test_an_unknown_setting_is_named_with_the_closest_one() -> None:
    assert line(num_env=3) == 'unknown setting "num-env": did you mean "num_envs"?'
    assert line(network={"knd": "rnn"}) == 'unknown setting "network.knd": did you mean "kind"?'
    assert line(critic={"hiden": 3}) == 'unknown setting "critic.hiden": did you mean "hidden"?'


def test_a_bad_value_is_named_as_the_user_writes_it() -> None:
    assert line(num_envs=0) == "--num-envs 0: input should be greater than or equal to 1"
    assert line(lr="fast").startswith("--lr 'fast': input should be a valid number")
    assert line(inner={"widths": "8,x"}).startswith("--inner.widths 'x': input should be a valid integer")
    assert line(lr=float("nan")).startswith("--lr nan: input should be a finite number")
    assert line(lr=1e31) == "--lr 1e+31: no number here is larger than 1e+30"


@pytest.mark.parametrize("hidden", ["9223372036854775808", "64,1000000000001"])
def test_a_whole_number_larger_than_any_count_is_refused(hidden: str) -> None:
    with pytest.raises(ValidationError, match="no whole number here is larger than 1000000000000"):
        NetworkConfig.model_validate({"hidden": hidden})


def test_several_faults_are_counted_and_a_models_own_check_speaks_for_itself() -> None:
    assert line(num_envs=0, lr=-1).endswith("(and 1 more)")
    assert line(num_envs=13) == "--num-envs 13 brings bad luck: use 12"


def test_a_missing_setting_is_required() -> None:
    with pytest.raises(ValidationError) as caught:
        ViewPart.model_validate({})
    assert one_line(caught.value, ViewPart) == "--group is required"
    assert one_line(caught.value, ViewPart, prefix="") == "group is required"


def test_did_you_mean_lists_all_options_when_none_is_close() -> None:
    assert did_you_mean("zzz", ["b", "a"]) == "choose from: a, b"
    assert did_you_mean("zzz", []) == "there is none to choose from"
