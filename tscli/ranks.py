"""Several processes that train one policy: each has its share of the envs, and all take the same gradient steps.

They are started by torchrun or by `--num-processes`; gloo joins them on CPUs, NCCL on GPUs. Where a process is alone,
everything here gives back what it was given. What must not differ between processes goes through `agree` (rank 0's
word), `mean` or `most`, or they would drift apart or wait for each other for good.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

T = TypeVar("T")


def rank() -> int:
    """Number of this process; 0 has the run folder, and speaks."""
    return int(os.environ.get("RANK", 0)) if size() > 1 else 0


def size() -> int:
    """Number of processes."""
    return int(os.environ.get("WORLD_SIZE", 1))


def begin(device: torch.device) -> None:
    """Join the other processes, once; each waits here for all."""
    import torch.distributed as dist

    if size() > 1 and not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        # Others wait while rank 0 evaluates. One that has ended is noticed at once, by its closed connection.
        _call(lambda: dist.init_process_group(backend, timeout=timedelta(days=1)))


def share(number: int, flag: str) -> int:
    """This process's part of a number.

    Raises:
        UserError: it cannot be shared out evenly.
    """
    if number % size():
        from tscli.config import UserError  # which `--help` does without

        raise UserError(f"{flag} {number} cannot be shared out evenly over {size()} processes: choose a multiple")
    return number // size()


def agree(value: T) -> T:
    """What rank 0 has."""
    if size() == 1:
        return value
    import torch.distributed as dist

    values: list[Any] = [value]
    _call(lambda: dist.broadcast_object_list(values, src=0))
    return values[0]


def barrier() -> None:
    """Wait for all."""
    most([0.0])


def gather(value: Tensor) -> Tensor:
    """A tensor of each process, all of one shape: [processes, ...]."""
    import torch
    import torch.distributed as dist

    found = [torch.empty_like(value) for _ in range(size())]
    _call(lambda: dist.all_gather(found, value.contiguous()))
    return torch.stack(found)


def mean(value: Tensor) -> Tensor:
    """The mean over processes, in place where there are several."""
    return value if size() == 1 else _reduce(value, "SUM").div_(size())


def mean_of(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics, those that are floats as means over the processes that have them: some are told only now and then."""
    out = dict(metrics)
    if size() > 1:
        import torch.distributed as dist

        everyone: list[Any] = [None] * size()
        mine = {name: value for name, value in out.items() if isinstance(value, float)}
        _call(lambda: dist.all_gather_object(everyone, mine))
        for name in dict.fromkeys(name for one in everyone for name in one):
            values = [one[name] for one in everyone if name in one]
            out[name] = sum(values) / len(values)
    return out


def most(values: Iterable[float]) -> list[float]:
    """The largest that any process has, one by one."""
    if size() == 1:
        return list(values)
    import torch

    return _reduce(torch.tensor(list(values), dtype=torch.float64), "MAX").tolist()


def same_weights(modules: Iterable[nn.Module]) -> None:
    """Give every process rank 0's weights and buffers."""
    if size() > 1:
        import torch.distributed as dist

        for module in modules:
            for value in (*module.parameters(), *module.buffers()):
                _call(lambda v=value: dist.broadcast(v.data, src=0))


def _reduce(value: Tensor, how: str) -> Tensor:
    import torch.distributed as dist

    nccl = dist.get_backend() == "nccl"
    on_device = value.cuda() if nccl and not value.is_cuda else value

    def reduce() -> None:
        work = dist.all_reduce(on_device, getattr(dist.ReduceOp, how), async_op=not nccl)
        if work is not None:
            # Gloo sleeps until the others have come, and waking up takes longer than they do: stay awake instead.
            while not work.is_completed():
                os.sched_yield()
            work.wait()  # raises where another process has ended

    _call(reduce)
    return on_device


def _call(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except RuntimeError as error:
        from tscli.config import UserError

        reason = str(error).splitlines()[0]
        raise UserError(f"another process of this training has ended ({reason}): go on with --resume") from None
