"""How many 64 x 64 pictures of the drawer a core draws by rays in a second, at all stages of random episodes.

    python benchmarks/camera.py --frames 2000

Processor time beside wall time, since other programs on the machine take their share of the latter; the fastest tenth
of the calls is the nearest to a core of one's own, whose caches nobody else fills.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch

from tscli.envs import make_env


def main() -> None:
    """Print frames/s of each camera."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=8, help="pictures that are asked for at once")
    parser.add_argument("--groups", nargs="*", default=["camera", "side"])
    parser.add_argument("--noise", type=float, default=0.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    env: Any = make_env({"kind": "drawer", "threads": 1, "camera_noise": args.noise}, 64)
    generator = torch.Generator().manual_seed(0)
    for group in args.groups:
        env.reset(0)
        took = []
        for _ in range(-(-args.frames // args.rows)):
            env.step(2 * torch.rand(64, 7, generator=generator) - 1)
            rows = torch.randperm(64, generator=generator)[: args.rows]
            begin = time.perf_counter(), time.process_time()
            env.observe(group, rows)
            took.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
        wall, processor = args.rows / np.median(took, axis=0)
        fastest = args.rows / np.quantile(took, 0.1, axis=0)[1]
        print(f"{group}, frames/s: {wall:.0f} of wall time, {processor:.0f} of processor time, at best {fastest:.0f}")


if __name__ == "__main__":
    main()
