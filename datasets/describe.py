"""Show what a dataset holds: groups and their ranges, episodes, returns, who acted, actions, size."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Group as Lines
from rich.table import Table

from tscli.config import Config as BaseConfig
from tscli.config import positional
from tscli.pairs import Pairs, find_pairs
from tscli.pairs.schema import TEACHER
from tscli.runs.session import Session

ORDER = 60


class Config(BaseConfig):
    """Which dataset."""

    path: str = positional("", description="A run, a pairs folder or its dataset.h5; empty takes the newest run's.")


def main(config: Config, session: Session) -> None:
    """Read everything once and print it."""
    folder = find_pairs(session, config.path)
    pairs = Pairs(folder, verify="full")
    schema, episodes = pairs.schema, pairs.episodes()
    finished = episodes[episodes["finished"]]
    files = [p for p in folder.rglob("*") if p.is_file()]
    actor = sum_over(pairs, "actor", lambda rows: np.array([(rows == TEACHER).sum()]))
    data: dict[str, Any] = {
        "folder": str(folder),
        "task": schema.task,
        "teacher": schema.teacher,
        "steps": pairs.num_steps,
        "shards": len(pairs.shards),
        "bytes": sum(p.stat().st_size for p in files),
        "episodes": {
            "number": len(episodes),
            "finished": len(finished),
            "terminated": int(finished["terminated"].sum()),
            "truncated": int(finished["truncated"].sum()),
            "success_rate": float(finished["success"].mean()) if schema.has_success and len(finished) else None,
            "length": spread(finished["length"]),
            "return": spread(finished["return"]),
            "seeds": sorted(set(episodes["seed"].tolist())),
        },
        "labels": ["action", *schema.teacher_fields],
        "acted_by_teacher": float(actor[0] / pairs.num_steps),
        "groups": {name: describe_group(pairs, name) for name in schema.groups},
        "action": describe_action(pairs),
    }
    session.show(Lines(summary(data), groups_table(data), action_table(data)), data)


def spread(values: np.ndarray) -> dict[str, float] | None:
    """Mean, standard deviation and range."""
    if not len(values):
        return None
    figures = {"mean": values.mean(), "sd": values.std(), "min": values.min(), "max": values.max()}
    return {name: float(value) for name, value in figures.items()}


def sum_over(pairs: Pairs, field: str, function: Any) -> np.ndarray:
    """The sum of `function(rows)` over blocks of a field, so that memory stays small."""
    return np.sum([function(rows) for rows in blocks(pairs, field)], axis=0)


def blocks(pairs: Pairs, field: str, size: int = 1 << 16) -> list[np.ndarray]:
    """The rows of a field in views of at most `size` rows."""
    return [rows[i : i + size] for s in pairs.shards for rows in [s.fields[field]] for i in range(0, len(rows), size)]


def describe_group(pairs: Pairs, name: str) -> dict[str, Any]:
    """Shape, meaning, and mean and range: of each entry of a vector, of an image as a whole."""
    group = pairs.schema.groups[name]
    field = f"obs/{name}"
    axis = None if group.is_image else 0
    rows = pairs.num_steps * (group.size if group.is_image else 1)
    mean = sum_over(pairs, field, lambda r: r.sum(axis, dtype=np.float64)) / rows
    low = np.min([r.min(axis) for r in blocks(pairs, field)], axis=0)
    high = np.max([r.max(axis) for r in blocks(pairs, field)], axis=0)
    about = {"shape": list(group.shape), "dtype": group.dtype, "privileged": group.privileged, "about": group.about}
    about |= {"fields": list(group.fields), "units": list(group.units)}
    return about | {name: np.ravel(value).tolist() for name, value in (("mean", mean), ("min", low), ("max", high))}


def describe_action(pairs: Pairs) -> dict[str, Any]:
    """Shares of each choice, or the range of each dimension; and how often student and teacher agree exactly."""
    spec = pairs.schema.action
    data: dict[str, Any] = {"kind": spec.kind, "names": list(spec.names)}
    if spec.is_continuous:
        data["min"] = np.min([r.min(0) for r in blocks(pairs, "action")], axis=0).tolist()
        data["max"] = np.max([r.max(0) for r in blocks(pairs, "action")], axis=0).tolist()
        data["mean"] = (sum_over(pairs, "action", lambda r: r.sum(0, dtype=np.float64)) / pairs.num_steps).tolist()
        return data

    def count(rows: np.ndarray) -> np.ndarray:
        columns = rows.reshape(len(rows), -1).T
        return np.concatenate([np.bincount(c, minlength=n)[:n] for c, n in zip(columns, spec.nvec, strict=True)])

    bounds = np.cumsum(spec.nvec)[:-1]
    for name in ("action", "teacher_action"):
        shares = np.split(sum_over(pairs, name, count) / pairs.num_steps, bounds)
        data[f"{name}_shares"] = [share.tolist() for share in shares]
    return data


def summary(data: dict[str, Any]) -> Table:
    """The figures of the whole dataset."""
    episodes = data["episodes"]
    table = Table.grid(padding=(0, 2))
    table.add_row("folder", data["folder"])
    table.add_row("task", data["task"] or "unknown")
    table.add_row("teacher", data["teacher"] or "unknown")
    table.add_row("size", f"{data['steps']} steps, {data['bytes'] / 1e6:.1f} MB in {data['shards']} shards")
    ends = f"{episodes['terminated']} terminated, {episodes['truncated']} truncated"
    table.add_row("episodes", f"{episodes['number']}, {episodes['finished']} of them finished: {ends}")
    for name in ("return", "length"):
        if value := episodes[name]:
            text = f"{value['mean']:.4g} +- {value['sd']:.3g}, from {value['min']:.4g} to {value['max']:.4g}"
            table.add_row(name, text)
    if episodes["success_rate"] is not None:
        table.add_row("success", f"{100 * episodes['success_rate']:.1f} %")
    table.add_row("labels", ", ".join(data["labels"]))
    share = 100 * data["acted_by_teacher"]
    table.add_row("acted by", f"teacher {share:.1f} %, student {100 - share:.1f} %")
    return table


def groups_table(data: dict[str, Any]) -> Table:
    """One line per entry of a vector, one per image."""
    table = Table(title="groups", title_justify="left")
    for column in ("group", "entry", "min", "mean", "max", "unit"):
        table.add_column(column, justify="right" if column in ("min", "mean", "max") else "left")
    for name, group in data["groups"].items():
        label = f"{name} {tuple(group['shape'])} {group['dtype']}" + (" privileged" if group["privileged"] else "")
        for i, (low, mean, high) in enumerate(zip(group["min"], group["mean"], group["max"], strict=True)):
            entry = group["fields"][i] if i < len(group["fields"]) else str(i) if len(group["min"]) > 1 else ""
            units = group["units"]
            unit = units[i] if i < len(units) > 1 else units[0] if units else ""
            table.add_row(label if i == 0 else "", entry, f"{low:.4g}", f"{mean:.4g}", f"{high:.4g}", unit)
    return table


def action_table(data: dict[str, Any]) -> Table:
    """Shares of the choices, or ranges."""
    action = data["action"]
    table = Table(title=f"actions ({action['kind']})", title_justify="left")
    names = action["names"]
    if action["kind"] == "continuous":
        for column in ("dimension", "min", "mean", "max"):
            table.add_column(column, justify="left" if column == "dimension" else "right")
        for i, (low, mean, high) in enumerate(zip(action["min"], action["mean"], action["max"], strict=True)):
            table.add_row(names[i] if names else str(i), f"{low:.4g}", f"{mean:.4g}", f"{high:.4g}")
        return table
    for column in ("choice", "taken %", "teacher's %"):
        table.add_column(column, justify="left" if column == "choice" else "right")
    single = action["kind"] == "discrete"
    for d, shares in enumerate(action["action_shares"]):
        for i, share in enumerate(shares):
            choice = (names[i] if names else str(i)) if single else f"{names[d] if names else d} = {i}"
            taught = action["teacher_action_shares"][d][i]
            table.add_row(choice, f"{100 * share:.1f}", f"{100 * taught:.1f}")
    return table


if __name__ == "__main__":
    from tscli.cli.app import run_script

    run_script(__file__)
