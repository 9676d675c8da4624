"""Pictures of a MuJoCo scene without OpenGL: each pixel is a ray, shaded by the normal of what it meets.

The same picture on every machine; `gl` takes MuJoCo's own renderer, where there is OpenGL, for nicer films.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tscli.config import UserError
from tscli.envs.contract import first_line
from tscli.envs.mujoco import load_mujoco
from tscli.envs.terrain import Terrain

SKY = np.array([0.62, 0.72, 0.84])
LIGHT = np.array([0.36, 0.27, 0.89])
TILE = 0.5  # m, of the ground's pattern
HORIZON = 30.0  # m
SEEN = np.array([1, 1, 1, 0, 0, 0], np.uint8)  # groups of shapes; what stands in the others is hidden


class Camera:
    """A camera that stands still, at work on any data of a model; its pictures are uint8 [H, W, 3].

    Several threads may use it at once, each with data of its own.

    Args:
        model: whose shapes of the groups 0 to 2 are seen, as in MuJoCo's own pictures.
        eye, look_at: points in the world [m].
        size: H, W.
        fovy: vertical field of view in degrees.
        ground: the height field that is the model's ground: MuJoCo takes a minute for a picture of one.
    """

    def __init__(
        self,
        model: Any,
        eye: np.ndarray,
        look_at: np.ndarray,
        size: tuple[int, int],
        fovy: float = 45.0,
        ground: Terrain | None = None,
    ):
        self._cast, self._ground = load_mujoco().mj_multiRay, ground
        self._eye, self._size = np.asarray(eye, dtype=np.float64), size
        height, width = size
        ahead = _unit(look_at - self._eye)
        right = _unit(np.cross(ahead, [0.0, 0.0, 1.0]))
        reach = np.tan(np.radians(fovy) / 2)
        x, y = np.meshgrid(
            (np.arange(width) + 0.5 - width / 2) / (height / 2), (height / 2 - np.arange(height) - 0.5) / (height / 2)
        )
        rays = ahead + reach * (x[..., None] * right + y[..., None] * np.cross(right, ahead))
        self._rays = np.ascontiguousarray(_unit(rays).reshape(-1, 3))
        color = 255 * np.concatenate([model.geom_rgba[:, :3], [SKY]])  # the last, of -1, is what meets nothing
        self._color = color.astype(np.float32)
        self._is_ground = np.append(model.geom_bodyid == 0, False)

    def look(self, model: Any, data: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The shape that each ray meets (-1: none), how far away [m], and its normal there: [P], [P], [P, 3]."""
        count = len(self._rays)
        geom, far, normal = np.empty(count, np.int32), np.empty(count), np.empty(3 * count)
        still = self._ground is None
        self._cast(model, data, self._eye, self._rays.ravel(), SEEN, still, -1, geom, far, normal, count, HORIZON)
        normal = normal.reshape(-1, 3)
        if self._ground is not None:
            reached = march(self._ground, self._eye, self._rays)
            met = np.flatnonzero(reached < np.where(geom < 0, HORIZON, far))
            geom[met], far[met] = np.flatnonzero(self._is_ground)[0], reached[met]
            normal[met] = self._ground.normal(self._eye[:2] + reached[met, None] * self._rays[met, :2])
        return geom, far, normal

    def draw(self, model: Any, data: Any) -> np.ndarray:
        """What it sees of data with positions computed."""
        geom, far, normal = self.look(model, data)
        shade = (0.4 + 0.6 * np.abs(normal @ LIGHT)).astype(np.float32)
        shade[geom < 0] = 1.0
        ground = np.flatnonzero(self._is_ground[geom])
        point = self._eye[:2] + self._rays[ground, :2] * far[ground, None]
        shade[ground] *= np.where(np.floor(point / TILE).sum(1) % 2 == 1, np.float32(0.86), np.float32(1.0))
        return (self._color[geom] * shade[:, None]).astype(np.uint8).reshape(*self._size, 3)


def march(ground: Terrain, eye: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """How far from `eye` each of the rays [P, 3] meets the ground [m]; infinite where it does not.

    By steps of most of a ray's height above the ground, which are short where it is near, and back where it is below.
    """
    far, (low, high) = np.full(len(rays), np.inf), (ground.heights.min(), ground.heights.max())
    left = np.flatnonzero(rays[:, 2] < 0)
    at = ((high - eye[2]) / rays[left, 2]).clip(0)  # where it comes down to the highest place
    for _ in range(64):
        point = eye + at[:, None] * rays[left]
        above = point[:, 2] - ground.height(point[:, :2])
        met, lost = np.abs(above) < 0.004, (at > HORIZON) | (point[:, 2] < low - 0.1)
        far[left[met]] = at[met]
        on = ~(met | lost)
        left, at, above = left[on], at[on], above[on]
        at = at + 0.8 * above
    far[left] = at  # at an edge, which it may go to and fro across
    return far


def draw_gl(model: Any, data: Any, eye: np.ndarray, look_at: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The same view by OpenGL, uint8 [H, W, 3].

    Raises:
        UserError: there is no OpenGL.
    """
    mujoco = load_mujoco()
    camera, away = mujoco.MjvCamera(), look_at - eye
    camera.lookat[:], camera.distance = look_at, float(np.linalg.norm(away))
    camera.azimuth = float(np.degrees(np.arctan2(away[1], away[0])))
    camera.elevation = float(np.degrees(np.arcsin(away[2] / camera.distance)))
    try:
        renderer = mujoco.Renderer(model, *size)
    except Exception as error:
        raise UserError(f"there is no OpenGL here ({first_line(error)}): use picture: rays") from None
    with renderer:
        renderer.update_scene(data, camera)
        return renderer.render().copy()


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)
