"""The colour maze: a maze walked by hand, what each role sees, which maze an episode has, and resume."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from native_envs import use_torch

from tscli.config import UserError
from tscli.envs import EnvStep, color_maze, make_env
from tscli.envs.color_maze import Env, EnvConfig
from tscli.envs.mazes import BORDER, PATH, WHITE, draw_mazes
from tscli.envs.spaces import Group

RIGHT, DOWN, LEFT, UP = range(4)
# Start (5, 8) and goal (5, 1).
BY_HAND = """
..........
..........
..###o##..
..###o##..
..##oo##..
..##o###..
..##oo##..
..###o##..
..........
..........
"""
THROUGH = [UP, UP, LEFT, UP, UP, RIGHT, UP, UP, UP]


def grids(config: EnvConfig) -> np.ndarray:
    """Kind of each cell of the grids of the env's list: [num_mazes, y, x]."""
    mazes = draw_mazes(config.maze_size, config.num_mazes, config.maze_seed, config.split)
    return np.pad(mazes, ((0, 0), *[(config.margin, config.margin)] * 2), constant_values=WHITE)


def drawn_maze(text: str) -> np.ndarray:
    return np.array([[".#o".index(cell) for cell in line] for line in text.split()], np.uint8)


def maze_env(
    monkeypatch: pytest.MonkeyPatch, text: str = BY_HAND, num_envs: int = 1, limit: int = 100, encoding: str = "one_hot"
) -> Env:
    """An env whose only maze is the one drawn in the text."""
    monkeypatch.setattr(color_maze, "draw_mazes", lambda *args: drawn_maze(text)[None, 2:-2, 2:-2])
    settings = {"grid_size": 10, "margin": 2, "num_mazes": 1, "max_episode_steps": limit, "encoding": encoding}
    return Env(EnvConfig.model_validate(settings), num_envs)


def walk(env: Env, actions: list[int]) -> list[EnvStep]:
    """Every env takes the same actions."""
    return [env.step(torch.full((env.num_envs,), action)) for action in actions]


def rewards(results: list[EnvStep]) -> list[float]:
    return [round(float(result.reward[0]), 6) for result in results]


def put(env: Env, cells: torch.Tensor) -> None:
    """Set where the agents stand, [N], as y * grid_size + x."""
    env.load_state_dict({**env.state_dict(), "cell": cells})


def seen(env: Env, group: str) -> dict[str, float]:
    """Entries of the first env's group that are not zero, by name."""
    values = env.observe(group)[0].tolist()
    return {name: value for name, value in zip(env.groups[group].fields, values, strict=True) if value}


def test_the_path_pays_once_and_the_goal_ends_the_episode_as_a_success(monkeypatch):
    env = maze_env(monkeypatch)
    results = walk(env, THROUGH)
    assert rewards(results) == [0.5] * 8 + [10.0]
    assert not any(result.terminated or result.truncated or result.success for result in results[:-1])
    assert results[-1].terminated and results[-1].success and not results[-1].truncated
    assert env.map_cells().tolist() == [8 * 10 + 5]


def test_a_path_cell_entered_again_costs_and_pays_again_in_the_next_episode(monkeypatch):
    env = maze_env(monkeypatch)
    assert rewards(walk(env, [UP, UP, DOWN, UP, LEFT, RIGHT, DOWN, DOWN, UP])) == [
        *(0.5, 0.5, -0.5, -0.5, 0.5, -0.5, -0.5),
        *(0.0, -0.5),  # out of the maze, and in again
    ]
    walk(env, [UP, UP])  # into the lava
    assert rewards(walk(env, [UP, DOWN])) == [0.5, 0.0]


def test_lava_ends_the_episode_without_success(monkeypatch):
    env = maze_env(monkeypatch)
    results = walk(env, [LEFT, UP])
    assert rewards(results) == [0.0, -0.1]
    assert results[1].terminated and not results[1].success and not results[1].truncated
    assert rewards(walk(env, [UP, RIGHT])) == [0.5, -0.1]


def test_the_way_around_pays_the_goal_alone(monkeypatch):
    env = maze_env(monkeypatch)
    results = walk(env, [RIGHT] * 3 + [UP] * 7 + [LEFT] * 3)
    assert rewards(results) == [0.0] * 12 + [10.0]
    assert results[-1].success


def test_the_border_holds_the_agent_on_every_side(monkeypatch):
    env = maze_env(monkeypatch)
    results = walk(env, [DOWN, DOWN, *[RIGHT] * 6])
    assert env.map_cells().tolist() == [9 * 10 + 9]
    results += walk(env, [UP] * 12)
    assert env.map_cells().tolist() == [0 * 10 + 9]
    results += walk(env, [LEFT] * 12)
    assert env.map_cells().tolist() == [0 * 10 + 0]
    assert set(rewards(results)) == {0.0}


def test_an_episode_is_truncated_at_its_limit_and_a_goal_in_the_last_step_wins(monkeypatch):
    env = maze_env(monkeypatch, limit=9)
    last = walk(env, [DOWN] * 9)[-1]
    assert (last.truncated.item(), last.terminated.item(), last.success.item()) == (True, False, False)
    last = walk(env, THROUGH)[-1]
    assert (last.truncated.item(), last.terminated.item(), last.success.item()) == (False, True, True)
    assert not any(result.truncated for result in walk(env, [DOWN] * 8))


def test_the_limit_is_one_step_per_cell_unless_given():
    assert make_env({"kind": "color_maze"}, 1).max_episode_steps == 441
    assert make_env({"kind": "color_maze", "max_episode_steps": 7}, 1).max_episode_steps == 7


def test_colors_name_the_own_cell_and_the_four_around_it(monkeypatch):
    env = maze_env(monkeypatch)
    assert seen(env, "colors") == dict.fromkeys(
        ["own_white", "below_white", "right_white", "above_path", "left_white"], 1.0
    )
    walk(env, [UP])
    assert seen(env, "colors") == dict.fromkeys(
        ["own_path", "below_white", "right_lava", "above_path", "left_lava"], 1.0
    )
    assert seen(env, "masked_colors") == dict.fromkeys(
        ["own_colored", "below_white", "right_colored", "above_colored", "left_colored"], 1.0
    )
    walk(env, [DOWN, DOWN])
    assert seen(env, "colors")["below_border"] == seen(env, "masked_colors")["below_border"] == 1.0


def test_numeric_colors_are_the_published_numbers(monkeypatch):
    env = maze_env(monkeypatch, encoding="numeric")
    walk(env, [UP])
    assert env.observe("colors").tolist() == [[2.0, 0.0, 1.0, 2.0, 1.0]]
    assert env.observe("masked_colors").tolist() == [[2.0, 0.0, 2.0, 2.0, 2.0]]
    walk(env, [DOWN, DOWN])
    assert env.observe("colors").tolist() == env.observe("masked_colors").tolist() == [[0.0, 4.0, 0.0, 0.0, 0.0]]


def test_colors_are_the_mazes_at_every_cell():
    config = EnvConfig(num_mazes=3, encoding="numeric")
    mazes = np.pad(grids(config), ((0, 0), (1, 1), (1, 1)), constant_values=BORDER)
    number = np.array([0, 1, 2, 4])
    env = Env(config, 441)
    put(env, torch.arange(441))
    for cell, row in enumerate(env.observe("colors").tolist()):
        y, x = 1 + cell // 21, 1 + cell % 21
        around = mazes[int(env._state[2, cell]) // 441][[y, y + 1, y, y - 1, y], [x, x, x + 1, x, x - 1]]
        assert row == number[around].tolist()


@pytest.mark.parametrize("encoding", ["one_hot", "numeric"])
def test_nothing_that_the_student_sees_tells_lava_from_path(monkeypatch, encoding):
    other = BY_HAND.replace("o", "#").replace("#####", "o#oo#")
    envs = [maze_env(monkeypatch, text, 100, encoding=encoding) for text in (BY_HAND, other)]
    task = yaml.safe_load((Path(color_maze.__file__).parents[1] / "tasks" / "color_maze.yaml").read_text())
    assert (drawn_maze(BY_HAND) != drawn_maze(other)).any()
    for env in envs:
        put(env, torch.arange(100))
    for group in task["views"][task["student"]]:
        assert torch.equal(envs[0].observe(group), envs[1].observe(group))
        assert not envs[0].groups[group].privileged
    assert not torch.equal(envs[0].observe("colors"), envs[1].observe("colors"))
    assert envs[0].groups["colors"].privileged


def test_the_goal_offset_is_in_grid_sizes_or_in_cells():
    scaled, raw = (make_env({"kind": "color_maze", "scale_offset": scale}, 1) for scale in (True, False))
    for env in (scaled, raw):
        env.step(torch.tensor([LEFT]))
    assert raw.observe("goal_offset").tolist() == [[1.0, -18.0]]
    torch.testing.assert_close(scaled.observe("goal_offset"), raw.observe("goal_offset") / 21)
    assert (raw.groups["goal_offset"].high, scaled.groups["goal_offset"].high) == (21.0, 1.0)


def test_the_last_move_is_one_step_old_and_nothing_after_a_blocked_move_or_a_start(monkeypatch):
    env = maze_env(monkeypatch)
    moves = [env.observe("last_move")[0].tolist()]
    for action in [RIGHT, DOWN, DOWN, LEFT, LEFT, UP, UP]:  # the second DOWN is blocked, the last UP enters lava
        walk(env, [action])
        moves.append(env.observe("last_move")[0].tolist())
    assert moves == [[0, 0], [1, 0], [0, 1], [0, 0], [-1, 0], [-1, 0], [0, -1], [0, 0]]
    assert env.final_observation("last_move", torch.tensor([0])).tolist() == [[0, -1]]


def test_the_final_observation_is_of_the_cell_that_ended_the_episode(monkeypatch):
    env = maze_env(monkeypatch, num_envs=2)
    for action in THROUGH:
        env.step(torch.tensor([DOWN, action]))
    row = torch.tensor([1])
    assert env.final_observation("goal_offset", row).tolist() == [[0, 0]]
    assert env.final_observation("last_move", row).tolist() == [[0, -1]]
    below = env.final_observation("colors", row)[0]
    assert [name for name, value in zip(env.groups["colors"].fields, below, strict=True) if value] == [
        *("own_white", "below_path", "right_white", "above_white", "left_white")
    ]
    assert env.observe("goal_offset", row).tolist() == [[0, torch.tensor(-0.7).item()]]
    assert env.observe("last_move", row).tolist() == [[0, 0]]


def test_a_final_observation_is_of_the_maze_that_ended_and_not_of_the_next():
    short, long = (Env(EnvConfig(max_episode_steps=limit), 64) for limit in (2, 3))
    last = walk(short, [UP, UP])[-1]
    walk(long, [UP, UP])
    ended = last.truncated.nonzero()[:, 0]  # those who did not step into lava
    assert 0 < len(ended) < 64
    assert torch.equal(short.final_observation("colors", ended), long.observe("colors", ended))


def mazes_of_episodes(env: Env, num: int) -> np.ndarray:
    """Place in the list of each env's first mazes, [num, N]; episodes last one step."""
    found = []
    for _ in range(num):
        found.append(np.array(env._state[2]) // 441)
        assert env.step(torch.full((env.num_envs,), DOWN)).truncated.all()
    return np.stack(found)


def test_an_envs_mazes_depend_on_the_seed_its_index_and_the_episode_alone():
    config = EnvConfig(max_episode_steps=1, num_mazes=20)
    few, many = Env(config, 2), Env(config, 5)
    few.reset(3)
    many.reset(3)
    # More episodes than are drawn ahead at once.
    first, second = mazes_of_episodes(few, 150), mazes_of_episodes(many, 150)
    assert np.array_equal(first, second[:, :2])
    assert all(len(set(column)) == 20 for column in second.T)
    few.reset(4)
    assert not np.array_equal(mazes_of_episodes(few, 150), first)
    few.reset(3)
    assert np.array_equal(mazes_of_episodes(few, 150), first)


def test_without_redrawing_an_env_keeps_its_maze():
    env = Env(EnvConfig(max_episode_steps=1, num_mazes=3, redraw="never"), 5)
    assert (mazes_of_episodes(env, 40) == [0, 1, 2, 0, 1]).all()
    env.reset(9)
    assert (mazes_of_episodes(env, 2) == [0, 1, 2, 0, 1]).all()


def test_where_it_is_measured_no_maze_is_played_twice_and_another_seed_draws_others():
    env = Env(EnvConfig(max_episode_steps=1, num_mazes=7, split="report", redraw="never"), 5)
    env.per_slot = 4
    env.reset(3)
    first, listed = mazes_of_episodes(env, 5), np.array(env._tables["number"])
    assert sorted(first[:4].flat) == list(range(20)) and (first[4] == first[0]).all()
    env.reset(4)
    assert not np.array_equal(listed, env._tables["number"])
    env.per_slot = 1
    env.reset(3)
    assert np.array_equal(env._tables["number"], listed[: 7 * 441]), "fewer are the first of them"


def test_torchs_arrays_give_what_numpys_give():
    torch.manual_seed(0)
    on_numpy, on_torch = Env(EnvConfig(max_episode_steps=5), 7), Env(EnvConfig(max_episode_steps=5), 7)
    use_torch(on_torch)
    rows, ends = torch.tensor([4, 1]), 0
    for env in (on_numpy, on_torch):
        env.reset(3)
    for t in range(400):
        action = torch.randint(4, (7,))
        ours, theirs = on_numpy.step(action), on_torch.step(action)
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(ours, theirs, strict=True))
        ended = (ours.terminated | ours.truncated).nonzero()[:, 0]
        ends += len(ended)
        for group in on_numpy.groups:
            for look, index in (("observe", rows), ("observe", None), ("final_observation", ended)):
                assert torch.equal(getattr(on_numpy, look)(group, index), getattr(on_torch, look)(group, index))
        assert torch.equal(on_numpy.map_cells(), on_torch.map_cells())
        if t == 200:
            on_torch.load_state_dict(on_numpy.state_dict())
    assert ends > 2 * 7 * 32, "enough to draw mazes ahead more than once"
    assert np.array_equal(on_numpy.render(2), on_torch.render(2))


def test_a_resumed_run_equals_the_uninterrupted_one_and_knows_where_it_has_been(monkeypatch):
    env = maze_env(monkeypatch, num_envs=2)
    walk(env, [*THROUGH, UP, UP])
    state = env.state_dict()
    walk(env, [DOWN, UP, LEFT, UP])
    other = maze_env(monkeypatch, num_envs=2)
    other.load_state_dict(state)
    assert rewards(walk(other, [DOWN, UP, LEFT, UP])) == [-0.5, -0.5, 0.5, 0.5]
    assert all(torch.equal(env.observe(group), other.observe(group)) for group in env.groups)


@pytest.mark.parametrize("encoding", ["one_hot", "numeric"])
def test_every_entry_of_every_group_has_a_name(encoding):
    groups: dict[str, Group] = make_env({"kind": "color_maze", "encoding": encoding}, 1).groups
    assert all(len(set(group.fields)) == group.size for group in groups.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"margin": 8},
            "margin 8 leaves 5 of grid_size 21 cells for the maze, which needs 6: give a margin of at most 7",
        ),
        ({"num_mazes": 0}, "num_mazes 0: "),
        ({"redraw": "sometimes"}, "redraw 'sometimes': "),
        ({"max_episode_steps": 0}, "max_episode_steps 0: "),
    ],
)
def test_settings_out_of_bounds_are_refused_in_one_line(settings, message):
    with pytest.raises(UserError) as caught:
        make_env({"kind": "color_maze", **settings}, 2)
    assert str(caught.value).startswith(f"env color_maze: {message}")
    assert "\n" not in str(caught.value)


def test_the_picture_shows_the_maze_the_agent_and_its_trail():
    env = Env(EnvConfig(), 2)
    close = lambda picture, color: np.abs(picture.astype(int) - color).sum(-1) < 30  # noqa: E731
    lava, path, agent = (228, 87, 46), (91, 155, 213), (46, 64, 87)
    before = env.render(0)
    assert before.shape == (420, 420, 3) and before.dtype == np.uint8
    maze = grids(EnvConfig())[int(env._state[2, 0]) // 441]
    for y, x in ((10, 4), (17, 17), *np.argwhere(maze == PATH)[[0, -1]]):
        color = path if maze[y, x] == PATH else lava
        assert close(before[20 * y + 10, 20 * x + 10], color)
    ys, xs = close(before, agent).nonzero()
    assert abs(ys.mean() - 389.5) < 2 and abs(xs.mean() - 209.5) < 2
    walk(env, [RIGHT] * 4)
    after = env.render(0)
    assert close(after[20 * 19 + 10, 20 * 14 + 10], agent)
    trail = after[20 * 19 + 10, 20 * 13]
    assert trail.sum() < before[20 * 19 + 10, 20 * 13].sum() - 200, "a dark line leads to the agent"
