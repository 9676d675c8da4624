"""Teachers and samples of their steps for the tests of `tscli diagnose`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import tscli
from tscli.config import NetworkConfig, parse_view
from tscli.diagnose import checks
from tscli.diagnose.checks import Finding
from tscli.diagnose.probe import Effort, imitation_gap
from tscli.diagnose.sample import Sample, roll_out
from tscli.envs import make_env
from tscli.envs.spaces import ActionSpec, Group
from tscli.envs.views import ViewSpec, resolve_view
from tscli.networks import Policy, PolicySpec
from tscli.streams import generator, seeded_init

GROUPS = {
    "state": Group((3,), fields=("place", "speed", "aim"), low=-50, high=50),
    "colors": Group((2,)),
    "lone": Group(()),
    "camera": Group((16, 20, 3), dtype="uint8", low=0, high=255),
}
PUSH = ActionSpec("discrete", nvec=(2,))
ARM = ActionSpec("continuous", low=(-1.0, -1.0), high=(1.0, 3.0))
EFFORT = Effort(fit_rows=1000, test_rows=300, units=64, updates=100, hurry=True)


def view(text: str, action: ActionSpec = PUSH) -> ViewSpec:
    """A view of the groups above, as a user writes it."""
    return resolve_view(text, parse_view(text), GROUPS, action)


def teacher_of(text: str = "state + colors", action: ActionSpec = PUSH, **network: Any) -> Policy:
    """A teacher whose answers differ from observation to observation, with a normaliser that has seen them."""
    config = NetworkConfig.model_validate({"hidden": (8,), "memory": 4, **network})
    with seeded_init(0, "test"):
        policy = Policy(PolicySpec(view(text, action), action, config))
    with torch.no_grad():
        policy.head.linear.weight.mul_(100)
    policy.encoder.update_normalizer({"vector": readings()["vector"][..., : policy.spec.view.vector_size]})
    return policy


def readings(steps: int = 20, columns: int = 30) -> dict[str, Tensor]:
    """[T, B, ...] of each group, and the vector of "state + colors"."""
    random = generator(0, "test")
    state = torch.randn(steps, columns, 3, generator=random)
    colors = (torch.rand(steps, columns, 2, generator=random) < 0.5).float()
    lone = torch.randn(steps, columns, generator=random)
    camera = torch.randint(0, 256, (steps, columns, 16, 20, 3), generator=random, dtype=torch.uint8)
    vector = torch.cat([state, colors], dim=-1)
    return {"state": state, "colors": colors, "lone": lone, "camera": camera, "vector": vector}


def sample_of(
    teacher: Policy | None = None, student: str = "state + colors", change: dict[str, Tensor] | None = None
) -> Sample:
    """Two episodes in every column, of which the last steps of some are padding, labelled by the teacher."""
    teacher = teacher or teacher_of()
    groups = readings() | (change or {})
    groups.pop("vector")
    reset = torch.zeros(groups["lone"].shape, dtype=torch.bool)
    reset[0], reset[12] = True, True
    valid = torch.ones_like(reset)
    valid[17:, ::3] = False
    views = (teacher.spec.view, view(student, teacher.spec.action))
    obs = [see(spec, groups) for spec in views]
    with torch.no_grad():
        dist, _ = teacher(obs[0], teacher.initial_hidden(reset.shape[1]), reset)
    previous = torch.zeros(*reset.shape, 1)
    used = {name: groups[name] for spec in views for name in spec.groups}
    action = teacher.spec.action
    return Sample(GROUPS, action, used, obs[0], obs[1], views, previous, dist, dist.mode(), reset, valid)


def see(spec: ViewSpec, groups: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a view shows of the groups."""
    obs = {part.group: groups[part.group] for part in spec.parts if part.is_image}
    vectors = []
    for part in spec.parts:
        if not part.is_image:
            value = groups[part.group].reshape(*groups["lone"].shape, -1)
            vectors.append(value if part.index is None else value[..., list(part.index)])
    return obs | ({"vector": torch.cat(vectors, -1)} if vectors else {})


def linear(task: str, teacher: str, rows: dict[int, list[float]]) -> tuple[Policy, Sample]:
    """A rolled-out teacher whose logits are linear in its view, and its sample for the task's student."""
    described = tscli.tasks.load_task(task)
    env = make_env(described.env, 16)
    views = [resolve_view(v, described.view(v), env.groups, env.action) for v in (teacher, described.student)]
    policy = Policy(PolicySpec(views[0], env.action, NetworkConfig(hidden=(), normalize=False)))
    with torch.no_grad():
        policy.head.linear.weight.zero_()
        policy.head.linear.bias.zero_()
        for choice, weights in rows.items():
            policy.head.linear.weight[choice] = torch.tensor(weights)
    return policy, roll_out(policy, env, views[1], 3000, seed=1)


def finding_of(policy: Policy, sample: Sample, memory: bool) -> Finding:
    """What a student of this sample's view can know."""
    return checks.from_student_view(imitation_gap(sample, False, EFFORT, seed=1), sample, memory)
