"""Episodes that were kept step by step, on a page: to play, to scrub through, with the worst moments marked."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np
from PIL import Image

from tscli.envs.spaces import ActionSpec
from tscli.files import file_hash
from tscli.report.charts import number
from tscli.report.fitting import Size, fitting, sample
from tscli.report.markup import Html, tag
from tscli.runs import Run

FILE = "episodes.h5"
_ROOM = 4_500_000  # bytes of a page for its episodes
_ENTRIES = 48  # of a role
_MARKED = 5  # worst moments of an episode
_HINT = "Arrow keys move by a step, with Shift by ten; space plays; n and p jump to the marked moments."


def player(run: Run, room: int = _ROOM) -> Html:
    """The episodes of an evaluation; empty where it has none, or where the file is not as it was written.

    Args:
        run: the evaluation.
        room: bytes of the page. Pictures become smaller and fewer until they fit. Every step keeps its numbers; those
            of what was seen lose digits where all numbers would take more than half of the room.
    """
    header = header_of(run)
    if not header:
        return Html()
    with h5py.File(run.path / FILE) as file:
        groups: list[Any] = [file[f"episode_{number}"] for number in range(len(file))]
        episodes = [_episode(number, group, header) for number, group in enumerate(groups, 1)]
        if len(json.dumps(episodes)) > room / 2:
            episodes = [episode | {"seen": _coarser(episode["seen"])} for episode in episodes]
        size = _size(groups, header, 3 / 4 * (room - len(json.dumps(episodes))))
        for episode, group in zip(episodes, groups, strict=True):
            _add_pictures(episode, group, header, size)
    if not episodes:
        return Html()
    roles = list(header["roles"])
    units = {name: unit for one in header["roles"].values() for name, unit in one["entries"]}
    data = {"roles": roles, "dt": header["control_dt"], "units": units, "episodes": episodes}
    words = "Greedy episodes, step by step"
    words += ": the student acts, and the teacher says what it would have done." if len(roles) > 1 else "."
    written = json.dumps(data, separators=(",", ":"))
    return tag(
        "figure", tag("p", f"{words} {_HINT}", class_="intro"), class_="player", tabindex="0", data_player=written
    )


def header_of(run: Run) -> dict[str, Any]:
    """What the file says of its roles; nothing where there is none, or it is not as it was written."""
    path = run.path / FILE
    if not path.is_file() or file_hash(path) != run.manifest["artifacts"].get(FILE):
        return {}
    with h5py.File(path) as file:
        return json.loads(str(file.attrs["header"]))


def _episode(number_: int, group: Any, header: dict[str, Any]) -> dict[str, Any]:
    """All but the pictures."""
    reward = group["reward"][:]
    ended = {"terminated": "it ended", "truncated": "the time was up"}.get(str(group.attrs["ended"]), "")
    words = [f"episode {number_}", str(group.attrs["task"]), f"return {number(float(group.attrs['return']))}"]
    words += [f"{len(reward)} steps", ended]
    if "success" in group.attrs:
        words.append("success" if group.attrs["success"] else "no success")
    strips = [_strip("reward", reward)]
    apart = _apart(group, header["action"]["kind"] == "continuous")
    if apart is not None:
        strips.insert(0, _strip(*apart))
    worst = worst_moments(apart[1]) if apart is not None else worst_moments(-reward)
    roles = {role: _role(group, role, one) for role, one in header["roles"].items()}
    return {
        "title": ", ".join(filter(None, words)),
        "steps": len(reward),
        "strips": strips,
        "worst": worst,
        "seen": roles,
        "actions": _actions(group, header),
    }


def _size(groups: list[Any], header: dict[str, Any], room: float) -> Size:
    """The size at which all pictures together have no more bytes than that."""
    places = [(group, i) for group in groups for i in range(len(group["frame_ends"]))]
    some = [places[i] for i in sample(len(places))]
    seen = [len(png_of(image)) for group, i in some for image in _images(group, header, i).values()]
    images = [Image.open(io.BytesIO(frame_of(group, i))) for group, i in some]
    return fitting(images, len(places), room, sum(seen) / max(1, len(some)))


def _add_pictures(episode: dict[str, Any], group: Any, header: dict[str, Any], size: Size) -> None:
    """Put an episode's pictures into it, and the images that its policies saw at the same steps."""
    chosen = range(0, len(group["frame_ends"]), size.every)
    whole = [frame_of(group, i) for i in chosen]
    if any(Image.open(io.BytesIO(one)).width > size.width for one in whole[:1]):
        whole = [size.still(Image.open(io.BytesIO(one))) for one in whole]
    episode["pictures"] = [base64.b64encode(one).decode() for one in whole]
    episode["at"] = [int(group["frame_steps"][i]) for i in chosen]
    for i in chosen:
        for (role, name), image in _images(group, header, i).items():
            episode["seen"][role]["images"].setdefault(name, []).append(base64.b64encode(png_of(image)).decode())


def frame_of(group: Any, i: int) -> bytes:
    """A picture, encoded."""
    ends = group["frame_ends"]
    return group["frames"][ends[i - 1] if i else 0 : ends[i]].tobytes()


def _images(group: Any, header: dict[str, Any], i: int) -> dict[tuple[str, str], np.ndarray]:
    """What each role saw with its cameras when a picture was taken."""
    step = int(group["frame_steps"][i])
    return {
        (role, name): group[f"{role}/{name}"][step] for role, one in header["roles"].items() for name in one["images"]
    }


def _apart(group: Any, continuous: bool) -> tuple[str, np.ndarray] | None:
    """How far the two are apart at each step; None where there is one alone."""
    if "kl" in group:
        return "KL", group["kl"][:]
    if "teacher/action" not in group or "student/action" not in group:
        return None
    one, other = group["student/action"][:], group["teacher/action"][:]
    if continuous:
        return "distance of actions", np.abs(one - other).reshape(len(one), -1).mean(1)
    return "actions differ", (one != other).reshape(len(one), -1).any(1).astype(np.float32)


def worst_moments(apart: np.ndarray) -> list[int]:
    """Steps at which `apart` [T] is highest, the worst first; each stands for a twentieth of the episode around it."""
    left, found = np.array(apart, dtype=np.float64), []
    around = max(1, len(left) // 20)
    floor = float(np.median(left))
    while len(found) < _MARKED and left.max() > floor:
        found.append(int(left.argmax()))
        left[max(0, found[-1] - around) : found[-1] + around + 1] = -np.inf
    return found


def _strip(name: str, values: np.ndarray) -> dict[str, Any]:
    return {"name": name, **_packed(values)}


def _packed(values: np.ndarray) -> dict[str, Any]:
    """Numbers [T] in two bytes each, between their least and their largest."""
    values = np.nan_to_num(np.asarray(values, dtype=np.float64), posinf=3e38, neginf=-3e38)
    low, high = float(values.min()), float(values.max())
    scaled = np.round((values - low) / ((high - low) or 1.0) * 65535).astype("<u2")
    return {"low": low, "high": high, "data": base64.b64encode(scaled.tobytes()).decode()}


def _coarser(found: Any) -> Any:
    """The same with one byte for each number, however deep it lies."""
    if isinstance(found, list):
        return [_coarser(one) for one in found]
    if not isinstance(found, dict):
        return found
    if "data" not in found:
        return {name: _coarser(one) for name, one in found.items()}
    fine = np.frombuffer(base64.b64decode(found["data"]), "<u2")
    coarse = np.round(fine / 257).astype(np.uint8)
    return found | {"data": base64.b64encode(coarse.tobytes()).decode(), "most": 255}


def _role(group: Any, role: str, said: dict[str, Any]) -> dict[str, Any]:
    """What a role saw, without its images."""
    seen: dict[str, Any] = {"entries": [], "images": {}}
    names = said["entries"]
    if f"{role}/vector" in group:
        values = group[f"{role}/vector"][:]
        seen["entries"] = [{"name": names[i][0], **_packed(values[:, i])} for i in range(min(len(names), _ENTRIES))]
        seen["more"] = max(0, len(names) - _ENTRIES)
    if f"{role}/latent" in group:
        values = group[f"{role}/latent"][:]
        seen["latent"] = [_packed(values[:, i]) for i in range(min(values.shape[1], 64))]
    return seen


def png_of(image: np.ndarray) -> bytes:
    """An image that a policy saw, uint8 [H, W, C]; of stacked pictures the last one."""
    channels = 3 if image.shape[-1] >= 3 else 1
    shown, buffer = np.ascontiguousarray(image[..., -channels:]), io.BytesIO()
    Image.fromarray(shown if channels == 3 else shown[..., 0]).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _actions(group: Any, header: dict[str, Any]) -> list[dict[str, Any]]:
    """For each choice the probability that each role gave it; for each continuous action what each would do."""
    spec = ActionSpec.from_json(header["action"])
    by_role = {}
    for role in header["roles"]:
        logits = f"{role}/logits"
        by_role[role] = (
            group[f"{role}/action"][:] if logits not in group else _probabilities(group[logits][:], spec.nvec)
        )
    names = spec.names or [f"action {i}" for i in range(len(spec.low))] if spec.is_continuous else _choices(spec)
    rows = []
    for i, name in enumerate(names):
        columns = {role: _packed(values[:, i]) for role, values in by_role.items()}
        low, high = 0.0, 1.0
        if spec.is_continuous:
            every = np.concatenate([values[:, i] for values in by_role.values()])
            low = spec.low[i] if np.isfinite(spec.low[i]) else float(every.min())
            high = spec.high[i] if np.isfinite(spec.high[i]) else float(every.max())
        rows.append({"name": name, "low": low, "high": high, "bar": not spec.is_continuous, "by": columns})
    return rows


def _choices(spec: ActionSpec) -> list[str]:
    if spec.kind == "discrete":
        return [spec.names[i] if i < len(spec.names) else str(i) for i in range(spec.nvec[0])]
    names = spec.names or [f"action {i}" for i in range(len(spec.nvec))]
    return [f"{name}: {i}" for name, count in zip(names, spec.nvec, strict=True) for i in range(count)]


def _probabilities(logits: np.ndarray, nvec: Sequence[int]) -> np.ndarray:
    """[T, K] of choices that may stand beside each other."""
    parts = []
    for part in np.split(logits.astype(np.float64), np.cumsum(nvec)[:-1], axis=1):
        weight = np.exp(part - part.max(1, keepdims=True))
        parts.append(weight / weight.sum(1, keepdims=True))
    return np.concatenate(parts, axis=1)
