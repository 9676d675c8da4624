"""What rows mean: kept with a dataset, and compared between datasets."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from pairs_data import ARM, SCHEMA, write

from tscli.pairs import Pairs, PairsSchema


def test_the_schema_survives_the_file(tmp_path):
    write(tmp_path, steps=5)
    assert Pairs(tmp_path).schema == SCHEMA
    assert PairsSchema.from_json(json.loads(json.dumps(ARM.to_json()))) == ARM


def test_labels_that_are_actions_alone_have_no_distribution_to_store():
    schema = replace(SCHEMA, extra={"distribution": "none"})
    assert schema.teacher_fields == () and "teacher_logits" not in schema.row_fields()
    assert PairsSchema.from_json(schema.to_json()) == schema
    assert "made differently" in schema.difference(SCHEMA)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [("action", "names", ["left"]), ("groups", "fields", ["one"]), ("groups", "units", ["m"] * 9)],
)
def test_names_and_units_are_as_many_as_what_they_name(part: str, key: str, value: list[str]) -> None:
    data = SCHEMA.to_json()
    named = data["action"] if part == "action" else next(g for g in data["groups"].values() if g["dtype"] == "float32")
    named[key] = value
    with pytest.raises(ValueError, match=f"{len(value)} .*{key}.* of "):
        PairsSchema.from_json(data)
