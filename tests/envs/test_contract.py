"""What every kind of environment promises (`tscli.envs.VecEnv`), for each kind that is found."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import inspect
import io
from typing import Any

import numpy as np
import pytest
import torch
from native_envs import use_torch
from pydantic import ValidationError
from torch import Tensor
from waits import count_waits

from tscli.config import UserError
from tscli.envs import EnvStep, VecEnv, env_kinds, make_env
from tscli.envs.contract import env_module
from tscli.envs.native import AHEAD

# Settings of the kinds that cannot be built without any; the other kinds are tried with their defaults.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "gym": [
        {"id": "Pendulum-v1"},
        {"id": "MountainCar-v0"},
        {"id": "FrozenLake-v1"},
        {"id": "Acrobot-v1", "vectorization": "async"},
    ],
    "mixed": [
        {"tasks": {"a": {"kind": "cartpole"}, "b": {"kind": "cartpole", "swapped": True}}},
        {"tasks": {"one": {"kind": "pendulum"}, "gym": {"kind": "gym", "id": "Pendulum-v1"}}},
    ],
}
# Settings beside the defaults that change what is shown or paid.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "cartpole": [{"position_noise": 0.3, "unit_return": True, "swapped": True}],
    "poisoned_doors": [{"num_doors": 6, "combination_length": 3, "lock_starts": 0.2}],
    "quadruped": [{"terrain": "patches", "threads": 0}],
    "drawer": [{"camera_noise": 9.0, "threads": 0}],
}
PATIENT = {"poisoned_doors": 0, "tiger_door": 2}  # an action that ends no episode, where most others do
DRAWN_BY_OTHERS = ("gym", "rsl", "quadruped", "drawer")
LIMIT = 5  # of an episode, so that every test sees some end
CASES = [
    {"kind": kind, **settings}
    for kind in env_kinds()
    for settings in [*SETTINGS.get(kind, [{}]), *VARIANTS.get(kind, [])]
]


NATIVE = [case for case in CASES if case["kind"] not in DRAWN_BY_OTHERS and "gym" not in case.get("tasks", {})]


def name_of(case: dict[str, Any]) -> str:
    """The case in a word, of which a mixture's members are named by their kinds alone."""
    values = [value.values() if isinstance(value, dict) else [value] for value in case.values()]
    return "-".join(str(v["kind"] if isinstance(v, dict) else v) for part in values for v in part)


def module_of(kind: str) -> Any:
    return env_module(kind)


def build(case: dict[str, Any], num_envs: int = 3, limit: int = LIMIT, device: str = "cpu") -> VecEnv:
    """The case's env, with short episodes where it has that setting; a missing extra skips the test."""
    config = module_of(case["kind"]).EnvConfig
    short = {"max_episode_steps": limit}
    settings: dict[str, Any] = short if "max_episode_steps" in config.model_fields else {}
    if case["kind"] == "mixed":
        settings = {"tasks": {name: {**member, **short} for name, member in case["tasks"].items()}}
    try:
        config.model_validate({k: v for k, v in case.items() if k != "kind"} | settings)
    except ValidationError as error:
        if all(problem["type"] == "missing" for problem in error.errors()):
            pytest.skip("cannot be built without settings")
    try:
        return make_env({**case, **settings}, num_envs, device)
    except UserError as error:
        if "pip install" in str(error):
            pytest.skip(str(error))
        raise


def actions(env: VecEnv, steps: int, seed: int = 0) -> list[Tensor]:
    """Random actions within bounds, of which the first rows do not depend on the number of envs."""
    rng = [np.random.default_rng((seed, row)) for row in range(env.num_envs)]
    spec = env.action

    def draw(row: int) -> np.ndarray:
        if spec.is_continuous:
            low, high = np.maximum(spec.low, -1.0), np.minimum(spec.high, 1.0)
            return rng[row].uniform(low, high).astype(np.float32)
        choice = rng[row].integers(spec.nvec)
        return choice[0] if spec.kind == "discrete" else choice

    return [torch.from_numpy(np.stack([draw(row) for row in range(env.num_envs)])) for _ in range(steps)]


def everything(env: VecEnv) -> dict[str, Tensor]:
    return {name: env.observe(name).clone() for name in env.groups}


def same(a: EnvStep | dict[str, Tensor], b: EnvStep | dict[str, Tensor], rows: slice = slice(None)) -> bool:
    left, right = (list(x.values()) if isinstance(x, dict) else list(x) for x in (a, b))
    return all(torch.equal(x, y[rows]) for x, y in zip(left, right, strict=True))


@pytest.fixture(params=CASES, ids=name_of)
def case(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


@pytest.mark.parametrize("kind", env_kinds())
def test_the_kind_is_documented(kind):
    module = module_of(kind)
    assert len((module.__doc__ or "").splitlines()) > 5, "the module's docstring is the specification"
    for word in ("roup", "ction", "eward", "ermina"):
        assert word in module.__doc__
    assert module.Env.__doc__
    assert module.EnvConfig.__doc__
    for name, field in module.EnvConfig.model_fields.items():
        assert field.description and field.description.endswith("."), f"{name} needs a sentence"
    assert list(inspect.signature(module.Env).parameters)[:3] == ["config", "num_envs", "device"]


def test_groups_and_actions_are_described(case):
    env = build(case)
    assert env.groups
    for group in env.groups.values():
        assert len(group.fields) in (0, group.shape[0])
        assert len(group.units) in (0, 1, group.shape[0])
        assert group.dtype in ("float32", "uint8")
        assert group.low <= group.high
        assert group.is_image or len(group.shape) == 1
    assert type(env.action).from_json(env.action.to_json()) == env.action
    assert env.control_dt is None or env.control_dt > 0
    assert env.max_episode_steps is None or env.max_episode_steps > 0


def test_observations_are_as_declared_throughout(case):
    env = build(case)
    env.reset(1)
    for action in [None, *actions(env, 3 * LIMIT)]:
        if action is not None:
            env.step(action)
        for name, group in env.groups.items():
            seen = env.observe(name)
            assert seen.shape == (env.num_envs, *group.shape)
            assert seen.dtype == getattr(torch, group.dtype)
            assert seen.device.type == env.device.type
            assert torch.isfinite(seen.float()).all()
            assert (seen >= group.low - 1e-4).all() and (seen <= group.high + 1e-4).all()


def test_a_step_gives_what_it_promises(case):
    env = build(case)
    env.reset(1)
    for action in actions(env, 3 * LIMIT):
        result = env.step(action)
        assert result.reward.dtype == torch.float32
        assert all(part.shape == (env.num_envs,) for part in result)
        assert all(part.dtype == torch.bool for part in result[1:])
        assert not (result.terminated & result.truncated).any()
        assert not (result.success & ~(result.terminated | result.truncated)).any()
        assert env.has_success or not result.success.any()


def test_asking_twice_or_for_some_rows_gives_the_same(case):
    env = build(case)
    env.reset(2)
    rows = torch.tensor([2, 0])
    for action in actions(env, 2 * LIMIT):
        env.step(action)
        for name in env.groups:
            some = env.observe(name, rows).clone()
            seen = env.observe(name).clone()
            assert torch.equal(some, seen[rows])
            assert torch.equal(seen, env.observe(name))
            assert torch.equal(some, env.observe(name, rows))


def test_what_was_observed_does_not_change_later(case):
    env = build(case)
    env.reset(2)
    kept = {name: env.observe(name) for name in env.groups}
    copies = everything(env)
    results = []
    for action in actions(env, LIMIT + 1):
        result = env.step(action)
        results.append((result, EnvStep(*(part.clone() for part in result))))
    assert same(kept, copies)
    assert all(same(result, copy) for result, copy in results)


def test_writing_into_a_result_changes_nothing_later(case):
    written, untouched = build(case), build(case)
    for env in (written, untouched):
        env.reset(2)
    for action in actions(written, 2 * LIMIT):
        result = untouched.step(action)
        mine = written.step(action)
        assert same(result, mine)
        for part in mine:  # as one who adds a penalty to the reward in place would
            part.fill_(7)


def test_the_same_seed_gives_the_same_run_and_more_envs_change_nothing(case):
    first, again, many = build(case), build(case), build(case, num_envs=5)
    for env in (first, again, many):
        env.reset(3)
    again.step(actions(again, 1)[0])
    again.reset(3)
    for a, b in zip(actions(first, 3 * LIMIT), actions(many, 3 * LIMIT), strict=True):
        assert same(everything(first), everything(again))
        assert same(everything(first), everything(many), slice(3))
        result = first.step(a)
        assert same(result, again.step(a))
        assert same(result, many.step(b), slice(3))


def test_the_final_observation_is_what_a_longer_episode_would_have_seen(case):
    short, long = build(case), build(case, limit=LIMIT + 3)
    if short.max_episode_steps != LIMIT:
        pytest.skip("has no setting for its time limit")
    for env in (short, long):
        env.reset(4)
    truncated = torch.zeros(3, dtype=torch.bool)
    running = torch.ones(3, dtype=torch.bool)  # rows where both envs are still in their first episode
    for action in actions(short, LIMIT):
        if case["kind"] in PATIENT:
            action[:2] = PATIENT[case["kind"]]
        result = short.step(action)
        long.step(action)
        ended = (result.terminated | result.truncated).cpu()
        truncated = running & result.truncated.cpu()
        for name, group in short.groups.items():
            rows = ended.nonzero()[:, 0]
            final = short.final_observation(name, rows)
            assert final.shape == (len(rows), *group.shape)
            assert final.dtype == short.observe(name).dtype
            cut = truncated.nonzero()[:, 0]
            assert torch.equal(short.final_observation(name, cut), long.observe(name, cut))
        running &= ~ended
    assert truncated.any(), "no episode of this case reaches its time limit"


def test_a_saved_env_goes_on_exactly_or_says_that_it_does_not(case):
    env, other = build(case), build(case)
    env.reset(5)
    plan = actions(env, 6 * LIMIT)
    for action in plan[: 3 * LIMIT + 2]:
        env.step(action)
    file = io.BytesIO()
    torch.save(env.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    other.load_state_dict(state)
    if not env.exact_resume:
        result = other.step(plan[0])
        assert not (result.truncated.any() and (other.max_episode_steps or 2) > 1), "episodes begin anew"
        return
    assert same(everything(env), everything(other))
    for action in plan[3 * LIMIT + 2 :]:
        assert same(env.step(action), other.step(action))
        assert same(everything(env), everything(other))


def test_a_misspelt_group_is_an_error(case):
    env = build(case)
    env.reset(0)
    with pytest.raises(UserError, match="misspelt") as caught:
        env.observe("misspelt")
    assert "\n" not in str(caught.value)


def test_native_envs_draw_themselves(case):
    if case not in NATIVE:
        pytest.skip("draws by what its library needs")
    env = build(case)
    env.reset(0)
    picture = env.render(1)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3 and picture.shape[2] == 3
    assert picture.std() > 0


@pytest.mark.parametrize("case", NATIVE, ids=name_of)
def test_a_native_env_waits_for_no_gpu(case):
    env = build(case, num_envs=5)
    use_torch(env)
    env.reset(3)
    rows, plan = torch.arange(5), actions(env, 2 * AHEAD + 1)
    ended = torch.zeros(5, dtype=torch.bool)
    with count_waits() as found:
        for action in plan:
            result = env.step(action)
            ended |= result.terminated | result.truncated
            for name in env.groups:
                env.final_observation(name, rows)
                env.observe(name, rows)
                env.observe(name)
    assert not found
    assert ended.any() and env.is_native


@pytest.mark.parametrize("case", NATIVE, ids=name_of)
def test_a_native_env_has_every_tensor_on_its_device(case):
    env = build(case, num_envs=5, device="meta")  # which has no values, and mixes with no other
    env.reset(3)
    rows = torch.arange(5, device="meta")
    for action in actions(env, AHEAD + 1):
        made = [*env.step(action.to("meta"))]
        for name in env.groups:
            made += [env.final_observation(name, rows), env.observe(name, rows), env.observe(name)]
        assert all(tensor.is_meta for tensor in made)


def test_an_env_of_another_library_is_not_native(case):
    assert build(case).is_native == (case in NATIVE)


def test_closing_twice_is_fine(case):
    env = build(case)
    env.close()
    env.close()
