"""What the entries of a view's vector are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from tscli.envs.spaces import Group
from tscli.envs.views import ViewSpec


class Entry(NamedTuple):
    """One number that a view shows."""

    group: str
    name: str
    unit: str


def entries_named(view: ViewSpec, groups: Mapping[str, Group]) -> list[Entry]:
    """The entries of a view's vector, in their order; one without a name is called by its group and number."""
    found = []
    for part in view.parts:
        if part.is_image:
            continue
        group = groups.get(part.group, Group(part.shape))  # the previous action is no group
        for i in range(part.size) if part.index is None else part.index:
            alone = part.group if part.size == 1 and part.index is None else f"{part.group}_{i}"
            name = group.fields[i] if i < len(group.fields) else alone
            found.append(Entry(part.group, name, unit_of(group, i)))
    return found


def unit_of(group: Group, i: int) -> str:
    """The unit of a group's entry, "" where none is said."""
    return group.units[0] if len(group.units) == 1 else group.units[i] if i < len(group.units) else ""


def told_apart(entries: list[Entry]) -> list[str]:
    """Their names; with their group's where two groups use the same."""
    groups = Counter(name for _, name in {(entry.group, entry.name) for entry in entries})
    return [f"{entry.group}: {entry.name}" if groups[entry.name] > 1 else entry.name for entry in entries]
