"""Running normalisation of observations and of rewards."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tscli import ranks


class RunningNorm(nn.Module):
    """Normalise vectors by the mean and deviation of everything seen so far.

    Its statistics are buffers, so that they travel with the policy's weights. They move only when `update` is called:
    a policy gives the same output for the same observation all through an iteration, and a frozen teacher for good.
    Batches are merged exactly (Chan et al. 1979), so the result does not depend on how data was cut into batches.
    """

    mean: Tensor
    var: Tensor
    count: Tensor
    _shift: Tensor
    _scale: Tensor

    def __init__(self, size: int, clip: float = 10.0):
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("var", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        # float32 copies for the hot path: derived from the buffers, hence not saved.
        self.register_buffer("_shift", torch.zeros(size), persistent=False)
        self.register_buffer("_scale", torch.ones(size), persistent=False)

    @property
    def scale(self) -> Tensor:
        """[size], one over the deviation: what `forward` multiplies by."""
        return self._scale

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] -> [..., size], clipped to +-`clip` deviations. Before the first update it clips and no more."""
        return ((x - self._shift) * self._scale).clamp(-self.clip, self.clip)

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Take in observations [..., size]."""
        x = x.reshape(-1, x.shape[-1]).to(torch.float32)
        if len(x) == 0:
            return
        # Two passes, of which the second takes away what the first one's rounding left: seven digits, in an eighth of
        # float64's time.
        mean = x.mean(dim=0)
        centred = x - mean
        rest = centred.mean(dim=0).to(torch.float64)
        mean, var = mean.to(torch.float64) + rest, centred.square().mean(dim=0).to(torch.float64) - rest.square()
        new = len(x) * ranks.size()
        if ranks.size() > 1:  # each process has as many
            means, variances = ranks.gather(torch.stack([mean, var])).unbind(1)
            mean = means.mean(0)
            var = variances.mean(0) + (means - mean).square().mean(0)
        total = self.count + new
        delta = mean - self.mean
        merged = (self.var * self.count + var * new + delta.square() * self.count * new / total) / total
        # The initial unit variance stands for nothing that was seen.
        self.var.copy_(torch.where(self.count == 0, var, merged))
        self.mean.add_(delta * (new / total))
        self.count.copy_(total)
        self._derive()

    def _derive(self) -> None:
        self._shift.copy_(self.mean)
        # An entry that never changes keeps its scale: dividing by its tiny deviation would blow up the first change.
        scale = torch.where(self.var > 1e-12, self.var, torch.ones_like(self.var)).rsqrt()
        self._scale.copy_(scale)

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._derive()


class ReturnScale:
    """Scale rewards by the running deviation of the discounted return (Engstrom et al. 2020), without shifting them.

    Args:
        num_envs: N.
        gamma: discount of the return that is tracked.
    """

    def __init__(self, num_envs: int, gamma: float, device: torch.device | str = "cpu", clip: float = 10.0):
        self.gamma, self.clip = gamma, clip
        self.returns = torch.zeros(num_envs, device=device)
        self.norm = RunningNorm(1).to(device)

    def __call__(self, reward: Tensor, done: Tensor) -> Tensor:
        """reward, done: [T, N] -> scaled reward [T, N]. The statistics take in the batch first."""
        history = torch.empty_like(reward)
        for t in range(len(reward)):
            self.returns = self.returns * self.gamma + reward[t]
            history[t] = self.returns
            self.returns = self.returns * (~done[t])
        self.norm.update(history.reshape(-1, 1))
        return (reward * self.norm.scale).clamp(-self.clip, self.clip)

    def restart(self) -> None:
        """Forget the returns of the episodes under way: the envs were reset from outside."""
        self.returns = torch.zeros_like(self.returns)

    def state_dict(self) -> dict[str, Tensor]:
        """For exact resume."""
        return {"returns": self.returns, **self.norm.state_dict()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict`."""
        self.returns = state["returns"].to(self.returns.device, copy=True)
        self.norm.load_state_dict({k: v for k, v in state.items() if k != "returns"})
