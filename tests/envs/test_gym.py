"""The bridge to Gymnasium: spaces, ends of episodes, seeds, success and what is refused."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from tscli.config import UserError
from tscli.envs import make_env
from tscli.envs.gym import Env

pytestmark = pytest.mark.filterwarnings("ignore:.*share an object")


class Counter(gymnasium.Env):
    """Sees (episode number, step) in one array that it writes over (`reuse`), and ends after four steps.

    Its info tells success at even episodes. Action 1 ends the episode at once, as terminated and truncated together.
    """

    observation_space = spaces.Box(-1, 1000, (2,), np.float64)
    action_space = spaces.Discrete(2, start=5)
    metadata = {"render_modes": []}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(self, reuse: bool = True) -> None:
        self.reuse = reuse
        self.seen = np.zeros(2)
        self.seen[0] = -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.seen[0] += 1
        self.seen[1] = 0
        return self.seen if self.reuse else self.seen.copy(), {}

    def step(self, action: int):
        assert action in self.action_space
        self.seen[1] += 1
        over = bool(self.seen[1] == 4)
        both = action == 6
        seen = self.seen if self.reuse else self.seen.copy()
        return seen, float(self.seen[1]), over or both, both, {"is_success": bool(self.seen[0] % 2 == 0)}


class Start(gymnasium.Env):
    """Sees the random number that its episode started from, and one more each step: it ends after two."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, np.inf], np.float32))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.number, self.steps = self.np_random.random(), 0
        return np.array([self.number, 0.0], np.float32), {}

    def step(self, action: np.ndarray):
        self.steps += 1
        return np.array([self.number, self.np_random.random()], np.float32), float(action[1]), False, False, {}


class Spaces(gymnasium.Env):
    """Every kind of observation that is supported, and a MultiDiscrete action."""

    observation_space = spaces.Dict(
        {
            "body": spaces.Dict({"pose": spaces.Box(-2.0, 3.0, (2, 2), np.float64), "on": spaces.MultiBinary(3)}),
            "camera": spaces.Box(0, 255, (4, 5, 3), np.uint8),
            "first": spaces.Box(0, 255, (3, 4, 5), np.uint8),
            "gray": spaces.Box(0, 255, (4, 5), np.uint8),
            "ram": spaces.Box(0, 255, (6,), np.uint8),
            "room": spaces.Discrete(4, start=-1),
            "two": spaces.MultiDiscrete([2, 3], start=[0, 1]),
        }
    )
    action_space = spaces.MultiDiscrete([3, 2], start=[1, 0])

    def _see(self) -> dict[str, Any]:
        picture = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
        return {
            "body": {"pose": np.array([[0.0, 1.0], [2.0, 3.0]]), "on": np.array([1, 0, 1], np.int8)},
            "camera": picture,
            "first": np.moveaxis(picture, -1, 0),
            "gray": picture[..., 0],
            "ram": np.arange(6, dtype=np.uint8),
            "room": np.int64(1),
            "two": np.array([1, 2]),
        }

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        return self._see(), {}

    def step(self, action: np.ndarray):
        assert action in self.action_space
        return self._see(), float(10 * action[0] + action[1]), False, False, {}


class TupleSeen(gymnasium.Env):
    """An observation space that is not supported."""

    observation_space = spaces.Tuple((spaces.Discrete(2), spaces.Discrete(2)))
    action_space = spaces.Discrete(2)


class TupleTaken(gymnasium.Env):
    """An action space that is not supported."""

    observation_space = spaces.Discrete(2)
    action_space = spaces.Tuple((spaces.Discrete(2), spaces.Discrete(2)))


def vector_counter(num_envs: int = 1, mode: str = "NextStep", max_episode_steps: int | None = None) -> SyncVectorEnv:
    """A vector entry point that knows masked resets."""
    # Gymnasium's own same-step env hands out the very array that this env would write over.
    makers = [lambda: Counter(reuse=mode != "SameStep")] * num_envs
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode(mode))


env_classes: list[Any] = [Counter, Start, Spaces, TupleSeen, TupleTaken]
vectorized: Any = vector_counter
for env_class in env_classes:
    gymnasium.register(
        f"tscli-test/{env_class.__name__}-v0",
        entry_point=env_class,
        vector_entry_point=vectorized if env_class is Counter else None,
    )


def make(name: str, num_envs: int = 2, **settings: Any) -> Env:
    env = make_env({"kind": "gym", "id": name if "-v" in name else f"tscli-test/{name}-v0", **settings}, num_envs)
    assert isinstance(env, Env)
    return env


def rows(*index: int) -> torch.Tensor:
    return torch.tensor(index)


EVERY_WAY = [
    {"vectorization": "sync"},
    {"vectorization": "async"},
    {"vectorization": "vector_entry_point"},
    {"vectorization": "vector_entry_point", "kwargs": {"mode": "SameStep"}},
    {"vectorization": "vector_entry_point", "kwargs": {"mode": "Disabled"}},
]


@pytest.mark.parametrize(
    "way", EVERY_WAY, ids=lambda way: "-".join([way["vectorization"], *way.get("kwargs", {}).values()])
)
def test_no_pair_of_observations_spans_two_episodes(way):
    env = make("Counter", **way)
    begun = env.observe("state")[:, 0].tolist()
    for t in range(1, 13):
        result = env.step(torch.zeros(2, dtype=torch.int64))
        episode, step = (t - 1) // 4, (t - 1) % 4 + 1
        assert result.reward.tolist() == [step, step]
        assert result.terminated.tolist() == [step == 4] * 2
        if step == 4:
            assert env.final_observation("state", rows(0, 1)).tolist() == [[b + episode, 4] for b in begun]
            assert env.observe("state").tolist() == [[b + episode + 1, 0] for b in begun]
        else:
            assert env.observe("state").tolist() == [[b + episode, step] for b in begun]
    env.close()


def test_only_the_ended_rows_begin_anew():
    for way in EVERY_WAY:
        env = make("Counter", **way)
        env.step(torch.tensor([0, 0]))
        result = env.step(torch.tensor([1, 0]))
        assert result.terminated.tolist() == [True, False]
        assert not result.truncated.any()  # row 0 reported both, and terminated wins
        assert env.observe("state")[:, 1].tolist() == [0, 2]
        assert env.final_observation("state", rows(0))[0, 1] == 2
        env.step(torch.tensor([0, 0]))
        assert env.observe("state")[:, 1].tolist() == [1, 3]
        env.close()


def test_the_final_observation_at_the_time_limit_is_what_a_longer_episode_would_have_seen():
    short, long = make("Pendulum-v1", max_episode_steps=3), make("Pendulum-v1", max_episode_steps=50)
    assert short.max_episode_steps == 3
    for env in (short, long):
        env.reset(4)
    for t in range(3):
        action = torch.full((2, 1), 0.5)
        result, _ = short.step(action), long.step(action)
        assert result.truncated.tolist() == [t == 2] * 2
    assert torch.equal(short.final_observation("state", rows(1, 0)), long.observe("state", rows(1, 0)))
    assert not torch.equal(short.observe("state"), long.observe("state"))


def test_a_row_that_did_not_end_has_no_final_observation():
    env = make("Counter")
    env.step(torch.tensor([1, 0]))
    with pytest.raises(ValueError, match="row 1 did not end"):
        env.final_observation("state", rows(0, 1))
    assert env.final_observation("state", rows()[:0].long()).shape == (0, 2)


def test_cartpoles_own_vector_env_is_refused_since_it_resets_one_step_late():
    with pytest.raises(UserError, match=r"^CartPole-v1's vector entry point .* set vectorization to sync or async$"):
        make("CartPole-v1", vectorization="vector_entry_point")


def test_every_supported_space_becomes_a_group():
    env = make("Spaces", 3)
    assert {name: (group.shape, group.dtype, group.low, group.high) for name, group in env.groups.items()} == {
        "body.pose": ((4,), "float32", -2, 3),
        "body.on": ((3,), "float32", 0, 1),
        "camera": ((4, 5, 3), "uint8", 0, 255),
        "first": ((4, 5, 3), "uint8", 0, 255),
        "gray": ((4, 5, 1), "uint8", 0, 255),
        "ram": ((6,), "float32", 0, 255),
        "room": ((4,), "float32", 0, 1),
        "two": ((5,), "float32", 0, 1),
    }
    assert env.observe("body.pose").tolist() == [[0, 1, 2, 3]] * 3
    assert env.observe("body.on").tolist() == [[1, 0, 1]] * 3
    assert env.observe("room").tolist() == [[0, 0, 1, 0]] * 3
    assert env.observe("two").tolist() == [[0, 1, 0, 1, 0]] * 3
    picture = torch.arange(60, dtype=torch.uint8).view(4, 5, 3)
    assert torch.equal(env.observe("camera", rows(2)), picture[None])
    assert torch.equal(env.observe("first"), env.observe("camera"))
    assert torch.equal(env.observe("gray"), env.observe("camera")[..., :1])


def test_actions_reach_the_env_with_its_start_and_shape():
    env = make("Spaces")
    assert (env.action.kind, env.action.nvec) == ("multi_discrete", (3, 2))
    assert env.step(torch.tensor([[0, 1], [2, 0]])).reward.tolist() == [11, 30]
    env = make("Start")
    assert (env.action.low, env.action.high) == ((-1, 0), (1, np.inf))
    assert env.step(torch.tensor([[0.0, 0.25], [0.0, 7.0]])).reward.tolist() == [0.25, 7]
    assert make("Counter").action.nvec == (2,)


def test_observations_outlive_the_next_step():
    env = make("Counter")
    before = env.observe("state")
    env.step(torch.tensor([0, 0]))
    assert before[:, 1].tolist() == [0, 0]
    assert env.observe("state") is env.observe("state")


def test_an_envs_episodes_depend_on_the_seed_its_index_and_their_number_alone():
    few, many = make("Start", 2, max_episode_steps=2), make("Start", 3, max_episode_steps=4)
    seen: dict[Env, list[list[float]]] = {few: [], many: []}
    for env in (few, many):
        env.reset(9)
        for _ in range(3):
            seen[env].append(env.observe("state")[:, 0].tolist())
            for _ in range(env.max_episode_steps or 0):
                env.step(torch.zeros(env.num_envs, 2))
    # Although `many` drew more random numbers in each episode.
    assert [episode[:2] for episode in seen[many]] == seen[few]
    assert len({start for episode in seen[many] for start in episode}) == 9
    few.reset(10)
    assert few.observe("state")[:, 0].tolist() != seen[few][0]


def test_a_resume_starts_new_episodes_from_seeds_not_used_before():
    env = make("Start")
    env.reset(1)
    first = env.observe("state").clone()
    env.load_state_dict(env.state_dict())
    second = env.observe("state").clone()
    env.load_state_dict(env.state_dict())
    third = env.observe("state").clone()
    assert not env.exact_resume
    assert len({tuple(map(tuple, seen.tolist())) for seen in (first, second, third)}) == 3
    env.reset(1)
    assert torch.equal(env.observe("state"), first)


def test_success_is_read_from_info_at_the_last_step_alone():
    for way in EVERY_WAY:
        env = make("Counter", **way)
        assert not env.has_success
        begun = env.observe("state")[:, 0]
        told = [env.step(torch.zeros(2, dtype=torch.int64)).success.tolist() for _ in range(8)]
        even = [bool(b % 2 == 0) for b in begun]
        assert told == [[False] * 2] * 3 + [even] + [[False] * 2] * 3 + [[not e for e in even]]
        assert env.has_success
        env.close()
    assert make("Counter", success_key="is_success").has_success
    assert not make("Pendulum-v1").has_success


def test_time_between_actions_is_known_where_the_env_tells_it():
    assert make("Acrobot-v1").control_dt == 0.2  # its physics, and not the 15 frames per second of its films
    assert make("CartPole-v1").control_dt == 0.02
    assert make("Counter").control_dt is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id": "CartPol-v1"}, 'unknown Gymnasium id "CartPol-v1": did you mean "CartPole-v1"?'),
        ({"id": "CartPole"}, 'unknown Gymnasium id "CartPole": did you mean "CartPole-v1"?'),
        ({"id": "qqqq"}, 'unknown Gymnasium id "qqqq": gymnasium.pprint_registry() lists the known ones'),
        ({"id": "Nowhere/A-v1"}, 'write its module in front, as in "module:Nowhere/A-v1"'),
        ({"id": "no_such_module:A-v1"}, "module no_such_module cannot be imported"),
        ({"id": "Pendulum-v1", "kwargs": {"gravity": 1}}, "cannot be built with kwargs {'gravity': 1}"),
        ({"id": "Pendulum-v1", "kwargs": {"render_mode": "human"}}, "set render beside kwargs"),
        ({"id": "Pendulum-v1", "vectorization": "vector_entry_point"}, "set vectorization to sync or async"),
        ({"id": "Pendulum-v1", "max_episode_steps": 0}, "max_episode_steps 0"),
        ({"id": "tscli-test/TupleSeen-v0"}, "observation is a Tuple space, which is not supported"),
        ({"id": "tscli-test/TupleTaken-v0"}, "actions are a Tuple space"),
        ({"id": "CartPole-v1", "wrappers": ["ClipRewards"]}, 'has no wrapper "ClipRewards": did you mean "ClipReward"'),
        ({"id": "CartPole-v1", "wrappers": ["nowhere.Wrapper"]}, "module nowhere cannot be imported"),
        ({"id": "CartPole-v1", "wrappers": ["math.sin"]}, 'math has no wrapper "sin"'),
        ({"id": "CartPole-v1", "wrappers": [{"ClipReward": {"least": 0}}]}, "does not take {'least': 0}"),
        ({"id": "CartPole-v1", "wrappers": [{"ClipReward": {}, "TimeLimit": {}}]}, "write one wrapper per line"),
        ({"id": "CartPole-v1", "drop": ["mission"]}, 'no entry "mission": there is none to choose from'),
        ({"id": "tscli-test/Spaces-v0", "drop": ["rom"]}, 'no entry "rom": did you mean "room"?'),
        ({"id": "tscli-test/Counter-v0", "render": True}, "cannot draw pictures (its render modes: none)"),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(UserError) as caught:
        make_env({"kind": "gym", **settings}, 2)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("own_envs:Reach", 'own_envs does not register its class Reach: write gymnasium.register("Reach-v0", Reach)'),
        ("own_envs:Reach-v7", "own_envs registers none"),
        ("own_envs.nowhere:Reach-v7", "No module named 'own_envs.nowhere'; 'own_envs' is not a package)"),
        ("own_env:Reach-v7", "put own_env.py beside a task's YAML file that names it, or its folder into PYTHONPATH"),
        ("own_broken:Reach-v7", "(No module named 'no_such_package')"),
    ],
)
def test_an_env_of_ones_own_that_is_not_found_is_told_how_it_would_be(env_id, message, tmp_path, monkeypatch):
    (tmp_path / "own_envs.py").write_text("import gymnasium\n\n\nclass Reach(gymnasium.Env):\n    pass\n")
    (tmp_path / "own_broken.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as caught:
        make_env({"kind": "gym", "id": env_id}, 2)
    assert message in str(caught.value)
    assert "Reacher" not in str(caught.value)
    if env_id.startswith("own_broken"):
        assert str(caught.value).endswith(message)


def test_wrappers_are_put_on_with_their_arguments_and_the_first_one_innermost():
    clip = {"ClipReward": {"max_reward": 2.0}}
    double = {"gymnasium.wrappers.TransformReward": {"func": np.square}}
    rewards = []
    for wrappers in ([clip, double], [double, clip]):
        env = make("Counter", wrappers=wrappers)
        rewards.append([float(env.step(torch.zeros(2, dtype=torch.int64)).reward[0]) for _ in range(3)])
    assert rewards == [[1.0, 4.0, 4.0], [1.0, 2.0, 2.0]]


def test_dropped_entries_are_no_groups_whatever_their_space():
    env = make("Spaces", drop=["camera", "body"])
    assert set(env.groups) == {"first", "gray", "ram", "room", "two"}


def test_pictures_come_from_the_row_asked_for():
    class Drawn(Counter):
        metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - as Gymnasium declares it

        def __init__(self, render_mode: str | None = None) -> None:
            super().__init__()
            self.render_mode = render_mode

        def render(self):
            return np.full((8, 9, 3), self.seen[1] * 10, np.uint8)

    entry_point: Any = Drawn
    gymnasium.register("tscli-test/Drawn-v0", entry_point=entry_point)
    for way in ("sync", "async"):
        env = make("Drawn", render=True, vectorization=way)
        assert env.control_dt == 0.1
        env.step(torch.tensor([0, 1]))
        assert [env.render(row).mean() for row in (0, 1)] == [10, 0]
        assert env.render(0).shape == (8, 9, 3)
        env.close()
        env.close()
