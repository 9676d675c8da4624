"""Views: what they pick, remember and disturb, live and from a dataset."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_env import DISCRETE, GROUPS, FakeEnv
from native_envs import use_torch
from torch import Tensor
from waits import count_waits

from tscli.config import UserError, ViewPart, parse_view
from tscli.envs import make_env
from tscli.envs.spaces import ActionSpec, Group
from tscli.envs.views import Obs, View, ViewSpec, encode_action, entries_of, resolve_view
from tscli.learning.imitation import read_batch
from tscli.learning.rollout import ViewedEnv
from tscli.pairs import Pairs, PairsSchema
from tscli.pairs.writer import PairsWriter

ARM = ActionSpec("continuous", low=(-1.0, 0.0), high=(1.0, 4.0))


def resolved(*parts: ViewPart | str, action: ActionSpec = DISCRETE, name: str = "mine") -> ViewSpec:
    found = [part for p in parts for part in (parse_view(p) if isinstance(p, str) else (p,))]
    return resolve_view(name, tuple(found), GROUPS, action)


def part(group: str, **settings: object) -> ViewPart:
    return ViewPart.model_validate({"group": group, **settings})


def live(env: FakeEnv, spec: ViewSpec, seed: int = 0) -> ViewedEnv:
    return ViewedEnv(env, {"me": spec}, seed, final_for=("me",))


def actions(env: FakeEnv, t: int) -> Tensor:
    return (torch.arange(env.num_envs) + t) % 2


def roll(viewed: ViewedEnv, env: FakeEnv, steps: int) -> list[Obs]:
    out = []
    for t in range(steps):
        out.append(viewed.observe("me"))
        viewed.step(actions(env, t))
    return out


def test_entries_are_picked_by_number_range_and_name_in_the_order_asked_for() -> None:
    env = FakeEnv([[9], [9]])
    spec = resolved("state[step,0] + goal[0:2] + state[1:] + flag")
    viewed = live(env, spec)
    roll(viewed, env, 3)
    # env, episode, step are (row, 0, 3)
    assert viewed.observe("me")["vector"].tolist() == [[3, 0, 3, -3, 0, 3, 3], [3, 1, 3, -3, 0, 3, 3]]
    assert spec.vector_size == 7 and spec.groups == ("state", "goal", "flag")


def test_bare_numbers_are_entries_of_the_only_group() -> None:
    spec = resolve_view("mine", parse_view("0,2"), {"state": GROUPS["state"]}, DISCRETE)
    assert spec.parts[0].group == "state" and spec.parts[0].index == (0, 2)


def test_images_keep_their_groups_name_and_shape() -> None:
    env = FakeEnv([[9], [9]])
    obs = live(env, resolved("camera + state")).observe("me")
    assert obs["camera"].shape == (2, 8, 8, 3) and obs["camera"].dtype == torch.uint8
    assert obs["vector"].shape == (2, 3)


@pytest.mark.parametrize(
    ("spec", "action", "code"),
    [
        (DISCRETE, [0, 1], [[-1], [1]]),
        (ActionSpec("discrete", nvec=(3,)), [0, 2], [[1, 0, 0], [0, 0, 1]]),
        (ActionSpec("multi_discrete", nvec=(2, 3)), [[0, 1], [1, 2]], [[-1, 0, 1, 0], [1, 0, 0, 1]]),
        (ARM, [[-1.0, 0.0], [0.5, 4.0]], [[-1, -1], [0.5, 1]]),
        (ActionSpec("continuous", low=(-float("inf"),), high=(float("inf"),)), [[7.0], [-2.0]], [[7], [-2]]),
    ],
    ids=["binary", "three", "multi", "bounded", "unbounded"],
)
def test_an_action_is_encoded_by_its_kind(spec: ActionSpec, action: list, code: list) -> None:
    found = encode_action(torch.tensor(action), spec)
    assert found.dtype == torch.float32 and found.tolist() == code
    assert resolve_view("mine", parse_view("previous_action"), GROUPS, spec).vector_size == len(code[0])
    assert encode_action(torch.tensor([action, action]), spec).tolist() == [code, code]  # with a time axis


def test_the_previous_action_is_zero_at_an_episodes_start_and_the_executed_one_after() -> None:
    env = FakeEnv([[2], [9]], ARM)
    viewed = live(env, resolved("previous_action", action=ARM))
    assert viewed.observe("me")["vector"].tolist() == [[0, 0], [0, 0]]
    viewed.step(torch.tensor([[5.0, 2.0], [-0.5, -3.0]]))  # beyond the bounds: it is clipped
    assert viewed.observe("me")["vector"].tolist() == [[1, 0], [-0.5, -1]]
    viewed.step(torch.tensor([[0.5, 2.0], [0.25, 4.0]]))
    assert viewed.observe("me")["vector"].tolist() == [[0, 0], [0.25, 1]]  # env 0 begins anew


def test_a_truncated_episodes_last_view_has_the_last_action_and_reading() -> None:
    env = FakeEnv([[-2, 5], [9]])
    viewed = live(env, resolved("state + previous_action"))
    roll(viewed, env, 2)  # actions of env 0: 0, then 1
    final = viewed.final("me")
    assert final is not None
    assert final.rows.tolist() == [0]
    assert final.obs["vector"].tolist() == [[0, 0, 2, 1]]
    assert viewed.observe("me")["vector"].tolist() == [[0, 1, 0, 0], [1, 0, 2, -1]]


@pytest.mark.parametrize("delay", [1, 2, 3])
def test_a_delayed_reading_is_old_but_never_of_another_episode(delay: int) -> None:
    env = FakeEnv([[-5, 2, -1], [4], [-3]])
    viewed = live(env, resolved(part("state", delay=delay)))
    for _ in range(30):
        where = env._where()
        seen = viewed.observe("me")["vector"]
        assert torch.equal(seen[:, :2], where[:, :2].float())
        assert torch.equal(seen[:, 2], (where[:, 2] - delay).clamp(min=0).float())
        step = viewed.step(actions(env, 0))
        if step.truncated.any():
            final = viewed.final("me")
            assert final is not None
            end = env.final[final.rows]
            assert torch.equal(final.obs["vector"][:, :2], end[:, :2].float())
            assert torch.equal(final.obs["vector"][:, 2], (end[:, 2] - delay).clamp(min=0).float())


def test_parts_of_one_group_may_be_of_different_ages() -> None:
    env = FakeEnv([[9]])
    viewed = live(env, resolved(part("state", index="step", delay=2), "state[step]", part("flag", delay=1)))
    roll(viewed, env, 5)
    assert viewed.observe("me")["vector"].tolist() == [[3, 5, 4]]


def test_a_delayed_view_is_kept_up_to_date_by_steps_at_which_nobody_looks() -> None:
    env = FakeEnv([[9]])
    viewed = live(env, resolved(part("state", delay=2)))
    for t in range(4):
        viewed.step(actions(env, t))
    assert viewed.observe("me")["vector"][0, 2] == 2


def test_noise_repeats_with_the_seed_and_is_the_same_for_any_number_of_envs() -> None:
    spec = resolved(part("state", noise=0.5, delay=1), part("goal", noise=2.0), "flag")
    few, many = FakeEnv([[4], [3]]), FakeEnv([[4], [3], [5]])
    a, b = (torch.stack([o["vector"] for o in roll(live(env, spec), env, 40)]) for env in (few, many))
    assert torch.equal(a, b[:, :2])
    other = torch.stack([o["vector"] for o in roll(live(few, spec, seed=1), few, 40)])
    assert torch.equal(a[..., 5], other[..., 5])  # without noise
    assert torch.isclose(a[..., :5], other[..., :5]).float().mean() < 0.01


def test_noise_has_its_deviation_and_is_fresh_at_every_step_and_entry() -> None:
    env = FakeEnv([[9]] * 50)
    clean, noisy = live(env, resolved("state")), None
    truth = torch.stack([o["vector"] for o in roll(clean, env, 40)])
    noisy = live(env, resolved(part("state", noise=0.5)))
    noise = torch.stack([o["vector"] for o in roll(noisy, env, 40)]) - truth
    assert noise.std().item() == pytest.approx(0.5, abs=0.02) and abs(noise.mean().item()) < 0.02
    assert len(noise.unique()) > 0.99 * noise.numel()
    assert abs(torch.corrcoef(torch.stack([noise[1:].flatten(), noise[:-1].flatten()]))[0, 1]) < 0.05


def test_the_noise_of_a_last_observation_is_its_own() -> None:
    env = FakeEnv([[-1]] * 300)
    viewed = live(env, resolved(part("state", noise=1.0)))
    truth = env._where().float()
    first = viewed.observe("me")["vector"] - truth
    viewed.step(actions(env, 0))
    final = viewed.final("me")
    assert final is not None
    last = final.obs["vector"] - env.final
    after = viewed.observe("me")["vector"] - env._where()
    for other in (first, after):
        assert abs(torch.corrcoef(torch.stack([last.flatten(), other.flatten()]))[0, 1]) < 0.1
    assert last.std().item() == pytest.approx(1, abs=0.1)


def test_looking_twice_or_at_some_rows_shows_the_same_noise() -> None:
    env = FakeEnv([[9]] * 4)
    view = live(env, resolved(part("state", noise=0.5), part("camera", dropout=0.5), "previous_action")).views["me"]
    whole, rows = view.observe(), torch.tensor([3, 1])
    some = view.observe(rows)
    assert all(torch.equal(whole[name][rows], some[name]) for name in whole)
    assert view.observe() is whole


def test_a_dropped_reading_is_zero_as_often_as_asked() -> None:
    env = FakeEnv([[9]] * 50)
    spec = resolved(part("camera", dropout=0.3), part("state", dropout=0.3, noise=0.1))
    truth = torch.stack([o["vector"] for o in roll(live(env, resolved("state")), env, 40)[1:]])
    seen = roll(live(env, spec), env, 40)[1:]
    lost = torch.stack([(o["vector"] == 0).all(-1) for o in seen])
    assert lost.float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(lost, torch.stack([(o["vector"] == 0).any(-1) for o in seen]))  # all of it or nothing
    # What is lost does not depend on how large the noise is.
    noise = (torch.stack([o["vector"] for o in seen]) - truth)[~lost]
    assert noise.std(0).tolist() == pytest.approx([0.1] * 3, abs=0.008)
    dark = torch.stack([(o["camera"] == 0).flatten(1).all(-1) for o in seen])[:, 1:]  # env 0's is dark at step 0
    assert dark.float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert not torch.equal(dark, lost[:, 1:])  # sensors fail each for itself


def test_a_view_with_memory_refuses_rows() -> None:
    env = FakeEnv([[9], [9]])
    with pytest.raises(ValueError, match="has a delay"):
        live(env, resolved(part("state", delay=1))).observe("me", torch.tensor([0]))


def test_a_restored_view_goes_on_as_if_nothing_had_happened() -> None:
    spec = resolved(part("state", delay=2, noise=0.3), part("goal", dropout=0.4), "previous_action")
    env = FakeEnv([[4, -3], [5]])
    viewed = live(env, spec)
    roll(viewed, env, 5)
    viewed.observe("me")
    state = viewed.state_dict()
    expected = roll(viewed, env, 9)
    again = FakeEnv([[4, -3], [5]])
    restored = live(again, spec)
    restored.load_state_dict(state)
    found = roll(restored, again, 9)
    assert all(torch.equal(a["vector"], b["vector"]) for a, b in zip(expected, found, strict=True))


def test_a_view_saved_with_its_step_as_a_plain_number_goes_on_as_well() -> None:
    env, spec = FakeEnv([[9], [9]]), resolved(part("state", noise=0.3))
    viewed = live(env, spec)
    roll(viewed, env, 3)
    state = viewed.views["me"].state_dict()
    assert state["step"].dtype == torch.int64 and state["step"].item() == 3
    seen = viewed.observe("me")["vector"] - env.observe("state")
    for step in (state["step"], 3):
        restored = View(spec, DISCRETE, env, seed=0)
        restored.load_state_dict({**state, "step": step})
        assert torch.equal(restored.observe()["vector"] - env.observe("state"), seen)


@pytest.mark.parametrize("kind", ["cartpole", "color_maze", "mountain_car"])
def test_a_view_of_a_native_env_waits_for_no_gpu(kind: str) -> None:
    env, rows, done = make_env({"kind": kind}, 4), torch.arange(4), torch.tensor([True, False, False, True])
    use_torch(env)
    name, group = next(iter(env.groups.items()))
    index = f"{group.size - 1},0"
    parts = (part(name, noise=0.3, dropout=0.1), part(name, index=index), part("previous_action"))
    action = torch.zeros(4, 1) if env.action.is_continuous else torch.tensor([0, 1, 1, 0])
    for delay in (0, 2):  # with one, no rows are shown
        spec = resolve_view("mine", (*parts, part(name, index=index, noise=0.1, delay=delay)), env.groups, env.action)
        view = View(spec, env.action, env, seed=0)
        view.observe()
        encode_action(action, env.action)
        with count_waits() as found:
            for _ in range(4):
                view.observe(None if delay else rows)
                view.final(rows, action)
                view.advance(action, done)
                view.observe()
        assert not found


# --- the same view over a dataset -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shard_bytes", [5000, 1 << 20])
def test_a_dataset_shows_a_student_what_it_would_have_seen_live(tmp_path: Path, shard_bytes: int) -> None:
    env = FakeEnv([[7, -4, 1], [-12, 3], [5]])
    spec = resolved(
        part("state", delay=2), "state[step]", part("goal", index="1", delay=1), "previous_action", "flag", "camera"
    )
    viewed = live(env, spec)
    writer = PairsWriter(tmp_path / "pairs", PairsSchema(GROUPS, DISCRETE, has_success=True), 3, shard_bytes)
    seen: dict[tuple[int, int, int], dict[str, np.ndarray]] = {}
    for t in range(40):
        obs, where = viewed.observe("me"), env._where()
        for row in range(3):
            seen[tuple(where[row].tolist())] = {name: value[row].numpy() for name, value in obs.items()}
        groups = {name: env.observe(name) for name in GROUPS}
        step = viewed.step(actions(env, t))
        dist = {"logits": torch.zeros(3, 2)}
        ends = (step.reward, step.terminated, step.truncated)
        writer.append(groups, step.action, step.action, dist, *ends, torch.ones(3, dtype=torch.uint8), step.success)
    writer.close()
    pairs = Pairs(tmp_path / "pairs")
    assert (len(set(pairs.segments()["shard"])) > 2) == (shard_bytes == 5000)
    windows = pairs.windows(5)[:]
    batch = read_batch(pairs, windows, spec)
    episodes = pairs.episodes()[windows.episode]
    checked = set()
    for t, b in batch.weight.nonzero().tolist():
        key = (int(episodes["env"][b]), int(episodes["index"][b]), int(windows.step[b]) + t)
        checked.add(key)
        for name, value in seen[key].items():
            np.testing.assert_array_equal(batch.obs[name][t, b].numpy(), value, err_msg=f"{name} at {key}")
    assert checked == set(seen)


def test_a_dataset_shows_fresh_noise_and_lost_readings(tmp_path: Path) -> None:
    env = FakeEnv([[9]] * 10)
    viewed = live(env, resolved("state"))
    writer = PairsWriter(tmp_path / "pairs", PairsSchema({"state": GROUPS["state"]}, DISCRETE), 10)
    for t in range(100):
        obs = {"state": env.observe("state")}
        step = viewed.step(actions(env, t))
        dist = {"logits": torch.zeros(10, 2)}
        ends = (step.reward, step.terminated, step.truncated)
        writer.append(obs, step.action, step.action, dist, *ends, torch.ones(10, dtype=torch.uint8))
    writer.close()
    pairs = Pairs(tmp_path / "pairs")
    windows = pairs.windows(1, start="tile")[:]
    clean = read_batch(pairs, windows, resolved("state")).obs["vector"]
    spec = resolved(part("state", noise=0.5, dropout=0.3))
    once, again, next_look = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1), None
    first = read_batch(pairs, windows, spec, generator=once).obs["vector"]
    assert torch.equal(first, read_batch(pairs, windows, spec, generator=again).obs["vector"])
    next_look = read_batch(pairs, windows, spec, generator=once).obs["vector"]
    assert not torch.equal(first, next_look)
    lost = (first == 0).all(-1)
    assert lost.float().mean().item() == pytest.approx(0.3, abs=0.05)
    assert (first - clean)[~lost].std().item() == pytest.approx(0.5, abs=0.05)


# --- what cannot be resolved ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["camra"], 'has no group "camra": did you mean "camera"?'),
        (["state[stpe]"], 'group "state" has no entry "stpe": did you mean "step"?'),
        (["state[3]"], 'entry 3 is outside group "state", which has 0 to 2'),
        (["state[1:4]"], "entry 1:4 is outside"),
        (["state[2:1]"], "entry 2:1 is outside"),
        (["state[-1]"], 'has no entry "-1"'),
        (["0,1"], '0,1 needs the name of its group, for example "state[0,1]"'),
        (["camera[0]"], 'image group "camera" takes no index, noise or delay'),
        ([part("camera", noise=0.1)], "takes no index, noise or delay"),
        ([part("camera", delay=1)], "takes no index, noise or delay"),
        (["camera + camera"], 'names the image group "camera" twice'),
        ([part("previous_action", dropout=0.1)], "previous_action is known exactly"),
        (["previous_action[0]"], "previous_action is known exactly"),
        ([], "is empty: give it at least one group of state, goal"),
    ],
)
def test_a_view_that_does_not_fit_is_refused_in_one_line(parts: list, message: str) -> None:
    with pytest.raises(UserError) as caught:
        resolved(*parts)
    assert message in str(caught.value) and 'view "mine"' in str(caught.value) and "\n" not in str(caught.value)


def test_a_view_survives_json() -> None:
    spec = resolved("camera", part("state", index="0,2", noise=0.1, delay=2, dropout=0.2), "previous_action")
    assert ViewSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_view_of_a_depth_picture_is_flattened() -> None:
    groups = {"depth": Group((4, 5))}
    spec = resolve_view("mine", parse_view("depth[3:7]"), groups, DISCRETE)
    assert spec.vector_size == 4
    env = FakeEnv([[9]])
    env.groups = groups
    env._reading = lambda group, where: torch.arange(20.0).reshape(1, 4, 5)  # type: ignore[method-assign]
    assert View(spec, DISCRETE, env, 0).observe()["vector"].tolist() == [[3, 4, 5, 6]]


def test_the_entries_of_one_view_are_found_in_another_in_its_own_order() -> None:
    view = resolved("flag + state", part("goal", noise=0.1), "previous_action")
    assert entries_of(view, resolved("previous_action + state[2,0]")) == (6, 3, 1)
    assert entries_of(view, resolved(part("goal", noise=0.1))) == (4, 5)
    assert entries_of(view, view) == tuple(range(view.vector_size))
    for missing, words in (("goal", r"goal\[0\]"), ("camera + state[0] + goal[1]", r"goal\[1\]")):
        with pytest.raises(UserError, match=f'view "mine" does not show {words} as view "other" does'):
            entries_of(view, resolved(missing, name="other"))
