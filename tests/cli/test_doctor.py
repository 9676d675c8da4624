"""`tscli doctor`."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from tscli.cli.doctor import version_fits


def test_versions_are_compared_by_number() -> None:
    assert version_fits("2.13.0+cpu", ">=2.6") and version_fits("2.6", ">=2.6,<3")
    assert not version_fits("2.5.9", ">=2.6") and not version_fits("3.0", ">=2.6,<3")
    assert version_fits("1.4.2", "~=1.4.0") and not version_fits("1.5", "~=1.4.0")
