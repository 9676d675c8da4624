"""Pictures of a MuJoCo scene without OpenGL: each pixel is a ray, shaded by the normal of what it meets.

The same picture on every machine; `gl` takes MuJoCo's own renderer, where there is OpenGL, for nicer films.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tscli.config import UserError
from tscli.envs.contract import first_line
from tscli.envs.mujoco import load_mujoco

SKY = np.array([0.62, 0.72, 0.84])
LIGHT = np.array([0.36, 0.27, 0.89])
TILE = 0.5  # m, of the ground's pattern


def draw(
    model: Any, data: Any, eye: np.ndarray, look_at: np.ndarray, size: tuple[int, int], fovy: float = 45.0
) -> np.ndarray:
    """A picture by rays, uint8 [H, W, 3].

    Args:
        model, data: with positions computed.
        eye, look_at: points in the world [m].
        size: H, W.
        fovy: vertical field of view in degrees.
    """
    mujoco = load_mujoco()
    height, width = size
    ahead = _unit(look_at - eye)
    right = _unit(np.cross(ahead, [0.0, 0.0, 1.0]))
    reach = np.tan(np.radians(fovy) / 2)
    x, y = np.meshgrid(
        (np.arange(width) + 0.5 - width / 2) / (height / 2), (height / 2 - np.arange(height) - 0.5) / (height / 2)
    )
    rays = ahead + reach * (x[..., None] * right + y[..., None] * np.cross(right, ahead))
    rays = np.ascontiguousarray(_unit(rays).reshape(-1, 3))
    count = len(rays)
    geom, far, normal = np.full(count, -1, np.int32), np.zeros(count), np.zeros(3 * count)
    mujoco.mj_multiRay(model, data, eye, rays.ravel(), None, True, -1, geom, far, normal, count, 30.0)
    shade = 0.4 + 0.6 * np.abs(normal.reshape(-1, 3) @ LIGHT)
    color = model.geom_rgba[geom.clip(0), :3]
    ground = model.geom_bodyid[geom.clip(0)] == 0
    point = eye + rays * far[:, None]
    odd = (np.floor(point[:, 0] / TILE) + np.floor(point[:, 1] / TILE)) % 2 == 1
    color = np.where((ground & odd)[:, None], 0.86 * color, color) * shade[:, None]
    color[geom < 0] = SKY
    return (255 * color.clip(0, 1)).astype(np.uint8).reshape(height, width, 3)


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
