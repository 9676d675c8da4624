"""Drawer: a Franka Panda opens a drawer whose handle its camera sees only where the arm is not in the way (MuJoCo).

After the drawer task of SITT (Messikommer, Xing et al., ICLR 2025), whose own code was not released: a camera stands
beside the shoulder, and the path that the hand takes decides whether it shows the handle. The cabinet stands
elsewhere, turned and higher or lower in each episode. 25 Hz, five physics steps of 8 ms to an action. The model is
`models/panda_drawer.xml`; x is ahead of the robot, y on its left, z up, the origin at its base.

Groups, float32:

    robot [15]        rad, rad/s, m: the joints' angles and velocities, and how far each finger is open
    handle [8]        privileged: from the grip to the handle's middle [m] and the bar's direction, both in the hand's
                      axes (z along the fingers, which close along y); how far the drawer is open [m] and its speed

and pictures, uint8 [64, 64, 3], drawn by rays when asked for, the same on every machine:

    camera            from beside the shoulder, 30 degrees wide
    side              from the robot's right, past the arm

Actions: 7 in [-1, 1]: 0.15 rad of each is added to a joint's measured angle, and its servo pulls there. The fingers
stay half open, as a hook.
Reward per step, a tenth of the sum of these, d being the distance from grip to handle:
    0.5 / (1 + (d / 0.1)^2) + 0.5 / (1 + (d / 0.03)^2) + (1 - tanh 2.5 d)
    0.25 (1 - tanh 2.5 d) x (cosine to an approach 45 degrees from above + |cosine of the hand's x to the bar|)
    0.5 while the bar is between the fingers
    10 x opening that was gained near the handle (d < 7 cm) + 100 x the change of opening there
    0.5 each, once the drawer is open by 1 cm, and by 15 cm
    -0.01 |action|^2
Starts: near the maker's ready pose, the hand pointing down.
Ends: never terminated; truncated after `max_episode_steps`.
Success: at its end the drawer is open by more than 15 cm, and the bar is between the fingers.
"""

from __future__ import annotations

import copy
import importlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tscli.config import Config
from tscli.envs import ActionSpec, Group
from tscli.envs.mujoco import MANY, Arrays, MujocoEnv, compiled, ids_of, load_mujoco, load_spec, threads_field
from tscli.envs.native import time_limit
from tscli.envs.rays import SEEN, Camera
from tscli.streams import stream_id

MODEL = Path(__file__).parent / "models" / "panda_drawer.xml"
DECIMATION = 5
PIXELS = (64, 64)
ACTION_SCALE = 0.15  # rad
START = 0.08  # rad, of the joints around the ready pose
OPEN = 0.15  # m
NEAR = 0.07  # m, from grip to handle
JOINTS = tuple(f"joint{i}" for i in range(1, 8))
BAR = np.linspace(-0.06, 0.06, 7)[:, None] * [0.0, 1.0, 0.0]  # points whose view from the camera is tried, m
# Where the cameras stand, where they look, and their vertical field of view in degrees.
CAMERAS = {
    "camera": ((-0.05, -0.2, 1.0), (0.63, 0.0, 0.46), 30.0),
    "side": ((0.4, -0.95, 0.8), (0.55, 0.0, 0.45), 45.0),
    "film": ((0.1, -1.5, 1.0), (0.7, 0.0, 0.42), 45.0),
}


def camera(model: Any, name: str, size: tuple[int, int]) -> Camera:
    """One of `CAMERAS`."""
    eye, look_at, fovy = CAMERAS[name]
    return Camera(model, np.array(eye), np.array(look_at), size, fovy)


class EnvConfig(Config):
    """Settings of the drawer; 0 draws nothing."""

    max_episode_steps: int = time_limit(100)
    position: float = Field(0.05, ge=0, le=0.2, description="How far the cabinet is moved along x and y at most [m].")
    height: float = Field(0.06, ge=0, le=0.12, description="How far it is moved up or down at most [m].")
    yaw: float = Field(10.0, ge=0, le=45, description="How far it is turned at most [degrees].")
    camera_noise: float = Field(
        0.0, ge=0, le=255, description="Deviation of the noise on each number of a picture, of 255; 0 adds none."
    )
    threads: int | None = threads_field()


class Env(MujocoEnv):
    """N Pandas, each before its drawer; the module's docstring is the specification."""

    groups = {  # noqa: RUF012 - one constant for all instances
        "robot": Group((15,), fields=(*JOINTS, *(f"{name}_vel" for name in JOINTS), "finger"),
                       units=(*["rad"] * 7, *["rad/s"] * 7, "m")),
        "handle": Group(
            (8,), privileged=True,
            fields=("handle_x", "handle_y", "handle_z", "bar_x", "bar_y", "bar_z", "opening", "opening_vel"),
            units=(*["m"] * 3, *["1"] * 3, "m", "m/s"),
        ),
        "camera": Group((*PIXELS, 3), "uint8", low=0.0, high=255.0, about="From beside the shoulder."),
        "side": Group((*PIXELS, 3), "uint8", low=0.0, high=255.0, about="From the right."),
    }  # fmt: skip
    action = ActionSpec("continuous", low=(-1.0,) * 7, high=(1.0,) * 7, names=JOINTS)
    has_success = True

    def __init__(self, config: EnvConfig, num_envs: int, device: torch.device | str = "cpu") -> None:
        mujoco, model = load_mujoco(), compiled(load_spec(MODEL), MODEL)
        self._config = config
        self._cabinet = int(ids_of(model, "body", ["cabinet"], MODEL)[0])
        self._grip, self._handle = ids_of(model, "site", ["grip", "handle"], MODEL)
        self._pads = ids_of(model, "geom", ["left_pad", "right_pad"], MODEL)
        self._bar = int(ids_of(model, "geom", ["bar"], MODEL)[0])
        self._low, self._high = model.jnt_range[:7].T
        self._cameras = {name: camera(model, name, PIXELS) for name in ("camera", "side")}
        self._film = camera(model, "film", (240, 400))
        workers = max(1, torch.get_num_threads() if config.threads is None else config.threads)
        self._scenes = [(copy.copy(model), mujoco.MjData(model)) for _ in range(workers)]
        self._pool, self._kinematics = ThreadPoolExecutor(workers), mujoco.mj_kinematics
        super().__init__(
            model, num_envs, device, decimation=DECIMATION, max_episode_steps=config.max_episode_steps, keyframe=0,
            threads=config.threads, fields=("body_pos", "body_quat"),
            derived=("site_xpos", "site_xmat", "geom_xpos"),
        )  # fmt: skip
        # `when` is what a picture's noise is drawn from: the env, and the step of all its episodes.
        sizes = {"cabinet": 7, "before": 1, "held": 1, "near": 1, "when": 2}
        self._now |= {name: np.zeros((num_envs, size)) for name, size in sizes.items()}
        # Another batch, since rays would make the physics compute its positions anew.
        self._eyes: Any = importlib.import_module("mujoco.batch").Batch(model, num_envs, workers)
        self.reset(0)

    # --- episodes -----------------------------------------------------------------------------------------------------

    def _randomize(self, rows: np.ndarray) -> None:
        c, u = self._config, 2.0 * self._draw_once("drawer/cabinet", rows, 4) - 1.0
        half = np.radians(c.yaw) * u[:, 3] / 2
        place = self._usual["body_pos"][self._cabinet] + u[:, :3] * [c.position, c.position, c.height]
        turn = np.stack([np.cos(half), *np.zeros((2, len(rows))), np.sin(half)], -1)
        self._drawn["body_pos"][rows, self._cabinet], self._drawn["body_quat"][rows, self._cabinet] = place, turn
        self._now["cabinet"][rows] = np.concatenate([place, turn], -1)

    def _place(self, rows: np.ndarray) -> None:
        self._now["qpos"][rows, :7] += START * (2.0 * self._draw("drawer/start", rows, 7) - 1.0)
        self._now["ctrl"][rows, :7] = self._now["qpos"][rows, :7]
        for name in ("before", "held", "near"):
            self._now[name][rows] = 0.0

    def _started(self, rows: np.ndarray) -> None:
        self._now["when"][rows] = np.stack([rows + self.first, self._episode[rows] * MANY], -1)

    def _happen(self) -> None:
        """Nothing does."""

    # --- a step -------------------------------------------------------------------------------------------------------

    def _act(self, action: np.ndarray) -> None:
        now = self._now
        self._action = action
        now["before"][:, 0] = now["qpos"][:, 9]
        now["ctrl"][:, :7] = (now["qpos"][:, :7] + ACTION_SCALE * action).clip(self._low, self._high)

    def _outcome(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        now, never = self._now, np.zeros(self.num_envs, bool)
        now["when"][:, 1] = self._episode * MANY + self._steps
        grip = now["site_xpos"][:, self._grip]
        away = now["site_xpos"][:, self._handle] - grip
        hand, bar = (now["site_xmat"][:, i].reshape(-1, 3, 3) for i in (self._grip, self._handle))
        far = np.linalg.norm(away, axis=-1)
        between = self.between(now)
        opening, gained = now["qpos"][:, 9], now["qpos"][:, 9] - now["before"][:, 0]
        near, close = far < NEAR, 1.0 - np.tanh(2.5 * far)
        now["near"][:, 0] += np.where(near, gained.clip(0), 0.0)
        now["held"][:, 0] += between
        # Into the drawer and down, by 45 degrees; the drawer's x points into it.
        approach = np.sqrt(0.5) * ((hand[..., 2] * bar[..., 0]).sum(-1) - hand[:, 2, 2])
        along = np.abs((hand[..., 0] * bar[..., 1]).sum(-1))
        reward = 0.5 / (1 + (far / 0.1) ** 2) + 0.5 / (1 + (far / 0.03) ** 2) + close
        reward += 0.25 * close * (approach + along) + 0.5 * between
        reward += 10 * np.minimum(opening, now["near"][:, 0]) + 100 * gained * near
        reward += 0.5 * (opening > 0.01) + 0.5 * (opening > OPEN) - 0.01 * (self._action**2).sum(-1)
        return 0.1 * reward, never, never

    def between(self, at: Arrays) -> np.ndarray:
        """Whether the bar is between the fingers, [K]: from their tips up to the palm, and not beside its ends."""
        hand = at["site_xmat"][:, self._grip].reshape(-1, 3, 3)
        to_pads = at["geom_xpos"][:, self._pads] - at["site_xpos"][:, [self._handle]]
        left, right = np.einsum("kpi,kij->pkj", to_pads, hand)
        deep = (left[:, 2] > -0.01) & (left[:, 2] < 0.04)
        return (left[:, 1] * right[:, 1] < 0) & deep & (np.abs(left[:, 0]) < 0.06)

    def _succeeds(self) -> np.ndarray:
        return (self._now["qpos"][:, 9] > OPEN) & self.between(self._now)

    # --- what is seen -------------------------------------------------------------------------------------------------

    def _fields(self, group: str, at: Arrays) -> np.ndarray:
        if group in self._cameras:
            return self._pictures(group, at)
        if group == "robot":
            return np.concatenate([at["qpos"][:, :7], at["qvel"][:, :7], at["qpos"][:, 7:8]], -1)
        hand, bar = (at["site_xmat"][:, i].reshape(-1, 3, 3) for i in (self._grip, self._handle))
        away = at["site_xpos"][:, self._handle] - at["site_xpos"][:, self._grip]
        seen = np.stack([away, bar[..., 1]], 1) @ hand
        return np.concatenate([seen.reshape(-1, 6), at["qpos"][:, 9:10], at["qvel"][:, 9:10]], -1)

    def _pictures(self, name: str, at: Arrays) -> np.ndarray:
        """Of the rows of `at`, shared out over threads: [K, H, W, 3]."""
        count, workers = len(at["qpos"]), len(self._scenes)
        pictures = np.empty((count, *PIXELS, 3), np.uint8)

        def draw(worker: int) -> None:
            for i in range(worker, count, workers):
                pictures[i] = self._noisy(self._draw_scene(self._cameras[name], at, i, worker), name, at["when"][i])

        if workers == 1:
            draw(0)
        else:
            list(self._pool.map(draw, range(min(count, workers))))
        return pictures

    def _noisy(self, picture: np.ndarray, name: str, when: np.ndarray) -> np.ndarray:
        if not self._config.camera_noise:
            return picture
        rng = np.random.default_rng([self._seed, stream_id(f"drawer/{name}"), *when.astype(np.int64)])
        noise = self._config.camera_noise * rng.standard_normal(picture.shape, np.float32)
        return (picture + noise).round().clip(0, 255)

    def _draw_scene(self, camera: Camera, at: Arrays, i: int, worker: int = 0) -> np.ndarray:
        """A picture of row i: positions alone are computed anew, from what is kept of it."""
        model, data = self._scenes[worker]
        model.body_pos[self._cabinet], model.body_quat[self._cabinet] = at["cabinet"][i, :3], at["cabinet"][i, 3:]
        data.qpos[:] = at["qpos"][i]
        self._kinematics(model, data)
        return camera.draw(model, data)

    def visible(self, rows: np.ndarray, at: Arrays) -> np.ndarray:
        """Share of the handle that `camera` sees, [K]: of points along the bar, those before which nothing stands.

        Args:
            rows: [K], of all.
            at: of all rows, what `_now` has of them.
        """
        eye, bar = np.array(CAMERAS["camera"][0]), at["site_xmat"][rows, self._handle].reshape(-1, 3, 3)
        points = at["site_xpos"][rows][:, [self._handle]] + BAR @ bar.transpose(0, 2, 1)
        for name, part in (("body_pos", slice(3)), ("body_quat", slice(3, 7))):
            self._eyes.expand(name)[rows, self._cabinet] = at["cabinet"][rows, part]
        self._eyes.bind("qpos")[rows] = at["qpos"][rows]
        _, met = self._eyes.ray(eye, points - eye, geomgroup=SEEN, ids=rows)
        return (met == self._bar).mean(1)

    def measures(self) -> dict[str, tuple[Tensor, Tensor | None]]:
        at = self._before_reset("qpos", "cabinet", "held", "site_xpos", "site_xmat")
        # It counts where the bar has not been between the fingers yet.
        looked = at["held"][:, 0] == 0
        seen, rows = np.zeros(self.num_envs), np.flatnonzero(looked)
        if len(rows):
            seen[rows] = self.visible(rows, at)
        above, below = torch.from_numpy(np.stack([seen, looked])).to(self.device)
        return {"share of the handle in sight until it is held": (above, below)}

    def render(self, row: int = 0) -> np.ndarray:
        """The scene from the right, with the camera's picture in its corner: uint8 [240, 400, 3]."""
        now = {name: array[[row]] for name, array in self._now.items()}
        film = self._draw_scene(self._film, now, 0)
        film[4:132, 268:396] = self._pictures("camera", now)[0].repeat(2, 0).repeat(2, 1)
        return film

    def close(self) -> None:
        self._pool.shutdown()
