"""Episodes that were kept step by step, as a file for the viewer of Rerun (https://rerun.io).

Entities have the names of `episodes.h5` (docs/report.md), each episode's under `episode_0`, `episode_1`, ...
"""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from tscli.config import UserError
from tscli.envs.spaces import ActionSpec
from tscli.files import atomic_write
from tscli.report.episodes import FILE, frame_of, header_of, png_of
from tscli.runs import Run


def load_rerun() -> Any:
    """The package, which is not installed with tscli itself.

    Raises:
        UserError: it is not here.
    """
    try:
        return importlib.import_module("rerun")
    except ImportError:
        raise UserError("--rerun needs rerun-sdk: pip install 'tscli[rerun]'") from None


def write_rerun(run: Run | None, path: Path) -> None:
    """Write the episodes of an evaluation.

    Raises:
        UserError: it has none, or what it had is not as it was written.
    """
    rr = load_rerun()
    header = header_of(run) if run is not None else {}
    if run is None or not header:
        raise UserError(f"--rerun {path}: no evaluation has kept episodes: run `tscli eval --record 5` first")
    stream = rr.RecordingStream(run.task, recording_id=run.name)
    memory = stream.memory_recording()
    stream.send_recording_name(run.name)
    with h5py.File(run.path / FILE) as file:
        episodes = [f"episode_{number}" for number in range(len(file))]
        for name in episodes:
            _send(stream, name, file[name], header)
    stream.send_blueprint(_layout(episodes, list(header["roles"])))
    atomic_write(path, memory.drain_as_bytes())


def _send(stream: Any, episode: str, group: Any, header: dict[str, Any]) -> None:
    """All of an episode."""
    rr = load_rerun()
    dt = header["control_dt"]

    def times(steps: np.ndarray) -> list[Any]:
        seconds = [rr.TimeColumn("time", duration=steps * dt)] if dt else []
        return [rr.TimeColumn("step", sequence=steps), *seconds]

    def pictures(name: str, steps: np.ndarray, encoded: list[bytes], kind: str) -> None:
        columns = rr.EncodedImage.columns(blob=encoded, media_type=[kind] * len(encoded))
        stream.send_columns(f"{episode}/{name}", times(steps), columns)

    steps = np.arange(len(group["reward"]))
    images = {f"{role}/{name}" for role, one in header["roles"].items() for name in one["images"]}
    fields = [f"{role}/{name}" for role in header["roles"] for name in group.get(role, ())]
    for name in [*fields, *(name for name in ("kl", "reward") if name in group)]:
        values = group[name][:]
        if name in images:
            pictures(name, steps, [png_of(value) for value in values], "image/png")
            continue
        values = values.reshape(len(steps), -1).astype(np.float64)
        names = _names(name, header)
        if len(names) == values.shape[1]:
            stream.log(f"{episode}/{name}", rr.SeriesLines(names=names), static=True)
        columns = rr.Scalars.columns(scalars=values.ravel())
        stream.send_columns(f"{episode}/{name}", times(steps), columns.partition([values.shape[1]] * len(steps)))
    frames = [_jpeg(frame_of(group, i)) for i in range(len(group["frame_ends"]))]
    if frames:
        pictures("frames", group["frame_steps"][:], frames, "image/jpeg")


def _names(field: str, header: dict[str, Any]) -> list[str]:
    """Of a field's numbers, as far as they are known."""
    role, _, name = field.rpartition("/")
    if name == "vector":
        return [f"{entry} [{unit}]" if unit else entry for entry, unit in header["roles"][role]["entries"]]
    spec = ActionSpec.from_json(header["action"])
    of_dimensions = name == "action" and spec.kind != "discrete"
    return list(spec.names) if of_dimensions or name in ("logits", "mean", "std", "alpha", "beta") else []


def _jpeg(encoded: bytes) -> bytes:
    """A picture as the viewer reads it."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(encoded)).convert("RGB").save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()


def _layout(episodes: list[str], roles: list[str]) -> Any:
    """A tab for each episode: its pictures, and beside them how far the two part, what they do and what they saw."""
    rrb = importlib.import_module("rerun.blueprint")

    def plot(episode: str, name: str, *fields: str) -> Any:
        return rrb.TimeSeriesView(origin=episode, contents=[f"$origin/{field}" for field in fields], name=name)

    tabs = []
    for episode in episodes:
        plots = [plot(episode, "KL", "kl"), plot(episode, "reward", "reward")]
        plots += [plot(episode, f"{role}: action", f"{role}/action") for role in roles]
        plots += [plot(episode, f"{role}: sees", f"{role}/vector") for role in roles]
        picture = rrb.Spatial2DView(origin=f"{episode}/frames", name="picture")
        tabs.append(rrb.Horizontal(picture, rrb.Vertical(*plots), name=episode.replace("_", " ")))
    return rrb.Tabs(*tabs)
