"""The joint loop: what each of its phases may touch, and that without its weights it is plain PPO."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import copy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from stage_tools import TEACHER, call, error_of, metrics_of, weights_hash
from torch import Tensor

from tscli import streams
from tscli.cli.app import main
from tscli.config import NetworkConfig
from tscli.envs.spaces import ActionSpec
from tscli.envs.views import Part, ViewSpec
from tscli.launch.scripts import find_script, load_script
from tscli.learning import alignment, ppo
from tscli.learning.augment import Augmentation
from tscli.learning.optim import FlatAdam
from tscli.learning.record import Fields, Minibatches
from tscli.learning.rollout import ViewedEnv
from tscli.networks import Policy, PolicySpec
from tscli.networks.distributions import Categorical
from tscli.networks.files import load_policy_file

pytestmark = pytest.mark.usefixtures("no_plots")

# Said in full, since tasks tune `train-teacher` and `sitt` apart from each other.
SAME = ("--gamma", "0.9", "--gae-lambda", "0.9", "--clip-coef", "0.2", "--max-grad-norm", "1", "--entropy-coef", "0.01")
SAME = (*SAME, "--lr", "0.001", "--lr-schedule", "linear")
PPO = tuple(word for word in TEACHER[1:] if word not in ("--stop-return", "none"))
# The tasks' own students have memory.
PLAIN = ("--student", "none", "--paired", "steps", "--paired-fraction", "0.25", "--stop-success", "none")
SITT = ("sitt", *PPO, *PLAIN, "--align-updates", "2", "--align-batch", "32", "--penalty-coef", "0.2")
ZERO = ("--penalty-coef", "0", "--gradient-coef", "0", "--feature-coef", "0")
PENDULUM = ("--total-steps", "128", "--num-envs", "4", "--rollout-steps", "16", "--num-minibatches", "2")
PENDULUM = (*PENDULUM, "--num-epochs", "2", "--network.hidden", "8", "--eval-every", "2", "--eval-episodes", "1")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script(find_script("sitt"))


@pytest.mark.parametrize(
    ("task", "network"),
    [
        ("cartpole", ()),
        ("cartpole", ("--network", "rnn", "--network.memory", "8", "--bptt", "8")),
        ("pendulum", ("--normalize-reward", "--clip-value", "--lr-schedule", "adaptive")),
    ],
    ids=["discrete", "recurrent", "gaussian"],
)
def test_without_its_weights_the_teacher_is_that_of_train_teacher_bit_for_bit(
    folder: Path, task: str, network: tuple[str, ...]
) -> None:
    settings = PPO[1:] if task == "cartpole" else PENDULUM
    settings = (task, *settings, *SAME, *network, "--eval-every", "1000", "--seed", "3")
    alone = call("train-teacher", *settings, "--stop-return", "none")
    joint = call("sitt", *settings, *PLAIN, *ZERO, "--paired", "envs", "--align-updates", "2")
    assert weights_hash(joint.path / "teacher.safetensors") == weights_hash(alone.path / "last.safetensors")
    shared = ("rollout/return", "loss/policy", "loss/value", "entropy", "approx_kl", "clip_fraction", "lr")
    for ours, theirs in zip(metrics_of(joint), metrics_of(alone), strict=True):
        assert [ours[key] for key in shared] == [theirs[key] for key in shared]
    assert metrics_of(joint)[-1]["loss/align"] > 0, "the student was aligned all the same"


def rewards_of(monkeypatch: pytest.MonkeyPatch, *settings: str) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """The rewards that PPO learns from, iteration by iteration, and the metrics."""
    found: list[Tensor] = []
    compute_gae = ppo.compute_gae

    def watched(reward: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
        found.append(reward.clone())
        return compute_gae(reward, *args)

    with monkeypatch.context() as patch:
        patch.setattr(ppo, "compute_gae", watched)
        run = call(*SITT, *settings, "--network.init-std", "1")
    return found, metrics_of(run)


@pytest.mark.parametrize("direction", ["teacher_proxy", "proxy_teacher"])
@pytest.mark.parametrize("coef", [0.7, -0.7])
def test_the_penalty_is_taken_off_the_reward_of_each_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch, coef: float, direction: str
) -> None:
    rewards, metrics = rewards_of(monkeypatch, "--penalty-coef", str(coef), "--kl-direction", direction)
    # Cartpole pays 1 per step, so the rest is the penalty.
    taken = [1 - float(reward.mean()) for reward in rewards]
    assert taken == pytest.approx([line["penalty"] for line in metrics], abs=1e-6)
    assert all(value * coef > 0 for value in taken)
    if direction == "teacher_proxy":
        assert taken == pytest.approx([coef * line["kl_teacher_proxy"] for line in metrics], abs=1e-6)


@pytest.mark.parametrize(
    ("start", "warmup", "shares"),  # 64 steps per iteration
    [("0", "256", (0.25, 0.5, 0.75, 1, 1, 1)), ("128", "128", (0, 0, 0.5, 1, 1, 1)), ("192", "0", (0, 0, 1, 1, 1, 1))],
)
def test_the_penalty_begins_and_grows_to_its_full_weight(
    folder: Path, monkeypatch: pytest.MonkeyPatch, start: str, warmup: str, shares: tuple[float, ...]
) -> None:
    settings = ("--penalty-coef", "2", "--penalty-start", start, "--penalty-warmup", warmup)
    rewards, metrics = rewards_of(monkeypatch, *settings)
    for reward, line, share in zip(rewards, metrics, shares, strict=True):
        assert 1 - float(reward.mean()) == pytest.approx(2 * share * line["kl_teacher_proxy"], abs=1e-6)


def test_a_penalty_that_would_never_begin_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SITT, "--penalty-start", "100000"]) == 0
    assert "no step is charged a penalty" in capsys.readouterr().err


@pytest.mark.parametrize(("schedule", "falls"), [("linear", True), ("constant", False)])
def test_the_rate_of_the_alignment_falls_as_the_teachers_does(folder: Path, schedule: str, falls: bool) -> None:
    found = metrics_of(call(*SITT, "--lr-schedule", schedule))
    rates = [(entry["lr"], entry["align_lr"]) for entry in found if "align_lr" in entry]
    assert len(rates) >= 2
    middle = rates[len(rates) // 2]
    assert middle[0] / rates[0][0] == pytest.approx(middle[1] / rates[0][1])
    assert (middle[1] < rates[0][1]) == falls


@pytest.mark.parametrize(
    ("settings", "rows"),
    [(("--paired-fraction", "0.5"), 2), (("--paired-fraction", "0.25", "--paired", "envs"), 1)],
)
def test_the_student_observes_the_paired_rows_alone_and_only_when_it_is_aligned(
    folder: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...], rows: int
) -> None:
    asked: list[int] = []
    observe = ViewedEnv.observe

    def watched(self: ViewedEnv, role: str, which: Tensor | None = None) -> Any:
        if role == "student":
            assert which is not None
            asked.append(len(which))
        return observe(self, role, which)

    monkeypatch.setattr(ViewedEnv, "observe", watched)
    call(*SITT, *settings, "--align-every", "3")
    assert asked == [rows] * 16 * 2  # of six iterations, two align


VIEW = ViewSpec("full", (Part("state", None, 4, (4,)),))
NARROW = ViewSpec("partial", (Part("state", (0, 2), 2, (4,)),))


def trio(action: ActionSpec, shared: bool) -> tuple[Policy, Policy, Policy]:
    """Teacher, student and proxy."""
    network = NetworkConfig(hidden=(8,))
    with streams.seeded_init(0, "test"):
        teacher, student, proxy = (Policy(PolicySpec(view, action, network)) for view in (VIEW, NARROW, VIEW))
    if shared:
        student.head = proxy.head = teacher.head
    return teacher, student, proxy


DISCRETE = ActionSpec("discrete", nvec=(3,))
CONTINUOUS = ActionSpec("continuous", low=(-1.0, -1.0), high=(1.0, 1.0))


def paired(count: int = 40) -> Minibatches:
    obs = torch.randn(1, count, 4, generator=torch.Generator().manual_seed(0))
    seen = {"student_obs": {"vector": obs[..., [0, 2]]}, "paired_obs": {"vector": obs}}
    rollout = Fields({**seen, "paired_reset": torch.zeros(1, count, dtype=torch.bool)})
    return Minibatches(
        1, dict.fromkeys(("hidden", "proxy_hidden", "student_hidden"), torch.zeros(1, count, 0)), rollout
    )


def align(script: ModuleType, policies: tuple[Policy, Policy, Policy], **settings: Any) -> dict[str, float]:
    config = script.Config(task="cartpole", align_batch=16, **settings)
    _, student, proxy = policies
    optimizers = [FlatAdam((p.encoder if config.shared_head else p).parameters(), 0.01, 0.5) for p in (student, proxy)]
    stream = torch.Generator().manual_seed(1)
    return script.align(config, paired(), policies, optimizers, stream, Augmentation(config.augment, student, stream))


def weights(module: torch.nn.Module) -> list[Tensor]:
    return [value.clone() for value in module.state_dict().values()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("action", [DISCRETE, CONTINUOUS], ids=["discrete", "gaussian"])
def test_alignment_moves_student_and_proxy_and_neither_teacher_nor_shared_head(
    script: ModuleType, action: ActionSpec
) -> None:
    policies = teacher, student, proxy = trio(action, shared=True)
    before = [weights(module) for module in (teacher, teacher.head, student.encoder, proxy.encoder)]
    align(script, policies, align_updates=3)
    after = [weights(module) for module in (teacher, teacher.head, student.encoder, proxy.encoder)]
    assert [same(a, b) for a, b in zip(before, after, strict=True)] == [True, True, False, False]
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_alignment_brings_the_student_to_the_teacher_and_the_proxy_to_the_student(script: ModuleType) -> None:
    policies = trio(DISCRETE, shared=False)
    first = align(script, copy.deepcopy(policies), shared_head=False, align_updates=1)
    last = align(script, policies, shared_head=False, align_updates=300)
    for name, part in (("loss/align", 0.7), ("loss/align_proxy", 0.4)):  # the proxy sees all, the student half
        assert last[name] < part * first[name]


def test_heads_of_their_own_learn_the_teachers_deviation_too(script: ModuleType) -> None:
    policies = teacher, student, proxy = trio(CONTINUOUS, shared=False)
    with torch.no_grad():
        teacher.head.log_std.fill_(-2.0)
    align(script, policies, shared_head=False, align_updates=600)
    for policy in (student, proxy):
        torch.testing.assert_close(policy.head.log_std, teacher.head.log_std, atol=0.1, rtol=0)


def test_the_distance_is_that_of_latents_and_of_what_the_head_makes_of_them(script: ModuleType) -> None:
    config = script.Config(task="cartpole", shared_head=False)
    teacher, student, _ = trio(CONTINUOUS, shared=False)
    with torch.no_grad():
        for parameter in (*teacher.head.parameters(), *student.parameters()):  # latents, means and log deviations of 0
            parameter.zero_()
        student.head.linear.bias.fill_(0.5)
        student.head.log_std.fill_(-1.0)
    seen = {"vector": torch.ones(1, 3, student.spec.view.vector_size)}, torch.zeros(3, 0), torch.zeros(1, 3).bool()
    optimizer, goal = FlatAdam(student.parameters(), 0.1), torch.full((1, 3, 8), 0.25)
    latent, loss = script.follow(config, student, optimizer, seen, goal, teacher.head)
    assert loss.item() == pytest.approx(0.25 + 0.5 + 1.0) and not latent.any()
    assert student.head.linear.bias.tolist() == pytest.approx([0.4, 0.4], abs=1e-4), "and a step was taken"


def test_the_kl_goes_in_the_direction_that_is_asked_for() -> None:
    teacher = Categorical(torch.tensor([0.9, 0.1]).log())
    proxy = Categorical(torch.tensor([0.5, 0.5]).log())
    assert alignment.directed_kl(teacher, proxy, "teacher_proxy").item() == pytest.approx(0.368064)
    assert alignment.directed_kl(teacher, proxy, "proxy_teacher").item() == pytest.approx(0.510826)


def test_the_last_of_few_pairs_is_left_to_learn_from_and_one_is_always_held_out(script: ModuleType) -> None:
    for fraction, measured in ((0.5, True), (0.001, True), (0.0, False)):
        found = align(script, trio(DISCRETE, shared=True), align_updates=1, holdout_fraction=fraction)
        assert ("kl_proxy_student" in found) == measured


def test_the_hidden_state_of_a_student_with_memory_follows_the_envs_between_alignments(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A learning rate of almost nothing: hidden states differ by what was seen alone.
    settings = ("--student", "gru", "--student.memory", "8", "--paired", "envs", "--align-lr", "1e-30", "--lr", "1e-30")
    seen: list[Tensor] = []
    forward = Policy.forward

    def watched(self: Policy, obs: Any, hidden: Tensor, reset: Tensor | None = None) -> Any:
        if hidden.shape[-1] == 8:  # the student, asked about held-out pairs; the others have no memory
            seen.append(hidden)
        return forward(self, obs, hidden, reset)

    monkeypatch.setattr(Policy, "forward", watched)
    hiddens: dict[str, Tensor] = {}
    held = ("--paired-fraction", "1", "--holdout-fraction", "0.5", "--eval-every", "1000")
    for every in ("1", "2"):
        call(*SITT, *settings, "--align-every", every, *held)
        hiddens[every] = seen[-1]
    assert hiddens["1"].abs().sum() > 0
    torch.testing.assert_close(hiddens["1"], hiddens["2"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("--student", "rnn", "--no-shared-head"), "learns from whole sequences"),
        (("--num-minibatches", "64"), "no deviation"),
        (("--student.squash",), "like with like"),
        (("--student", "mlp", "--student.hidden", "16"), "latents of one size"),
        (("--penalty-coef", "lots"), "lots"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], settings: tuple[str, ...], message: str
) -> None:
    assert message in error_of(capsys, *SITT, *settings)


def test_a_student_whose_sensor_is_late_is_refused_since_it_must_be_read_at_every_step(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    views = "{full: [state], late: [{group: state, delay: 2}]}"
    Path("late.yaml").write_text(f"env: {{kind: cartpole}}\nviews: {views}\nstudent: late\n")
    assert '"late" has a delay' in error_of(capsys, "sitt", "late.yaml")


def test_students_with_memory_and_gaussian_actions_run_to_their_end_and_can_be_evaluated(folder: Path) -> None:
    run = call(*SITT, "--student", "rnn", "--student.memory", "8", "--paired", "envs")
    assert {"eval/return", "eval_teacher/return", "best_selection_score"} <= run.metrics.keys()
    call("eval", "--episodes", "2")
    call("sitt", "pendulum", *PENDULUM, *PLAIN, "--student-obs", "partial")
    report = call("eval", "--episodes", "2")
    assert report.holds == ("report",)


OPTIONS = (
    *("--penalty-std", "0.2", "--penalty-cap", "0.5", "--penalty-failure"),
    *("--student-envs", "2", "--memory", "64", "--latent-coef", "0.1", "--align-updates", "2", "--align-batch", "8"),
)


def test_all_that_the_paper_does_not_have_goes_together_and_starts_from_a_teacher(folder: Path) -> None:
    plain = "--no-network.normalize"  # by numbers that move without any learning
    start = call("train-teacher", "pendulum", *PENDULUM, plain)
    settings = ("sitt", "pendulum", *PENDULUM, plain, *PLAIN, "--student-obs", "partial", *OPTIONS, "--teacher", "1")
    run = call(*settings, "--lr", "1e-30", "--lr-schedule", "constant")  # too little to change a bit
    assert weights_hash(run.path / "teacher.safetensors") == weights_hash(start.path / "policy.safetensors")
    assert run.parents == [start.name]
    lines = metrics_of(run)
    assert [line["step"] for line in lines] == [96, 192], "of six envs, two are the student's"
    assert all(0 < line["penalty"] < 0.5 for line in lines)
    lines = metrics_of(call(*settings, "--lr-schedule", "adaptive", "--critic-warmup", "96"))
    assert abs(lines[0]["approx_kl"]) < 1e-6 < lines[1]["approx_kl"]
    assert lines[0]["lr"] != lines[1]["lr"] and lines[0]["align_lr"] > lines[1]["align_lr"]


def test_a_teacher_begins_to_learn_after_the_critics_warm_up_as_if_nothing_had_been_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = call("train-teacher", "pendulum", *PENDULUM)
    steps: list[float] = []
    step = FlatAdam.step

    def watched(self: FlatAdam) -> None:
        step(self)
        if self.lr == 0.00123:  # the teacher's and the critic's
            steps.append(float(self._steps))

    monkeypatch.setattr(FlatAdam, "step", watched)
    settings = ("--teacher", "1", "--critic-warmup", "64", "--lr", "0.00123", "--lr-schedule", "constant")
    run = call("sitt", "pendulum", *PENDULUM, *PLAIN, *settings, "--student-obs", "partial")
    assert steps == [1, 2, 3, 4, 1, 2, 3, 4]
    before, after = (load_policy_file(path / name) for path, name in
                     ((start.path, "policy.safetensors"), (run.path, "teacher.safetensors")))  # fmt: skip
    assert before.encoder.norm is not None and after.encoder.norm is not None
    assert after.encoder.norm.count == before.encoder.norm.count + 64, "it takes in what comes once it learns"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("--penalty-std", "0.2"), "is for Gaussian actions, and these are discrete"),
        (
            ("--memory", "9", "--student", "rnn", "--paired", "envs", "--no-shared-head"),
            "leave out --student-envs, --memory and --teacher",
        ),
        (("--student-envs", "2", "--align-every", "2"), "--student-envs act where every iteration aligns"),
        (("--penalty-failure", "--gamma", "1"), "give --gamma below 1"),
        (("--critic-warmup", "384"), "nobody else would learn"),
    ],
)
def test_an_option_that_does_not_fit_is_refused_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], settings: tuple[str, ...], message: str
) -> None:
    assert message in error_of(capsys, *SITT, *settings)


def test_a_teacher_of_another_network_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(*TEACHER)
    assert "has another view or network" in error_of(capsys, *SITT, "--teacher", "1", "--network.hidden", "7")
