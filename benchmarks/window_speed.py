"""How fast random windows come from pairs on disk, against numpy in memory and plain h5py.

Writes a dataset of --gigabytes into a temporary folder, three times: rows of 6 and of 48 float32, and images of
48 x 48 x 3 uint8; or with --image 64 --frames 200000 one of that many camera frames, 64 x 64. Then draws the same
random windows (--batch windows of --length steps) from

    memory     `array[rows]` of one numpy array that holds all rows
    pairs      `Pairs.gather`, the file in the page cache
    h5py       `dataset[row : row + length]` of dataset.h5, window by window

in turns within one process, and prints medians: for windows that are known beforehand, and for windows that have to be
drawn first, those of 16 batches at a time, as a round of DAgger does it. `RssAnon` is the memory of this process that
is not a mapped file, at its highest while the dataset is written and read.

    python benchmarks/window_speed.py --gigabytes 2
    python benchmarks/window_speed.py --image 64 --frames 200000
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from rich.console import Console
from rich.table import Table

from tscli.envs.spaces import ActionSpec, Group
from tscli.pairs import Pairs, PairsSchema, PairsWriter
from tscli.pairs.windows import Windows

ROWS = {
    "6 float32": Group((6,)),
    "48 float32": Group((48,)),
    "48x48x3 uint8": Group((48, 48, 3), dtype="uint8"),
}
NUM_ENVS, EPISODE = 64, 500
DRAWN_AT_ONCE = 16


def rss_anon() -> float:
    """Anonymous memory of this process in MiB; NaN where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def schema_of(group: Group) -> PairsSchema:
    """Pairs of one group and two continuous actions."""
    return PairsSchema({"obs": group}, ActionSpec("continuous", low=(-1.0,) * 2, high=(1.0,) * 2))


def row_bytes_of(schema: PairsSchema) -> int:
    """Bytes that a step of one env takes."""
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in schema.row_fields().values())


def write(folder: Path, group: Group, num_bytes: int) -> tuple[float, float, float]:
    """Write about `num_bytes`; gives microseconds per `append`, MB/s and the highest RssAnon in MiB."""
    schema = schema_of(group)
    row_bytes = row_bytes_of(schema)
    steps = max(num_bytes // (row_bytes * NUM_ENVS), 1)
    rng = np.random.default_rng(0)
    obs = rng.integers(0, 255, (16, NUM_ENVS, *group.shape)).astype(group.dtype)
    pair = np.zeros((NUM_ENVS, 2), np.float32)
    zeros, never = np.zeros(NUM_ENVS, np.float32), np.zeros(NUM_ENVS, bool)
    actor = np.ones(NUM_ENVS, np.uint8)
    writer = PairsWriter(folder, schema, NUM_ENVS)
    seconds, highest = 0.0, 0.0
    for step in range(steps):
        ends = np.full(NUM_ENVS, step % EPISODE == EPISODE - 1)
        dist = {"mean": pair, "std": pair}
        begin = time.perf_counter()
        writer.append({"obs": obs[step % 16]}, pair, pair, dist, zeros, never, ends, actor)
        seconds += time.perf_counter() - begin
        if step % 1000 == 0:
            highest = max(highest, rss_anon())
    begin = time.perf_counter()
    writer.close()
    seconds += time.perf_counter() - begin
    return 1e6 * seconds / steps, 1e-6 * steps * NUM_ENVS * row_bytes / seconds, highest


def interleaved(functions: dict[str, Callable[[int], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each function over rounds in which they take turns."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for i in range(rounds):
        for name, function in functions.items():
            begin = time.perf_counter()
            function(i)
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in times.items()}


def measure(folder: Path, batch: int, length: int, rounds: int) -> tuple[dict[str, float], float, float]:
    """Seconds per batch of each way to read, seconds to open with verification, and RssAnon in MiB of reading pairs."""
    before = rss_anon()
    begin = time.perf_counter()
    pairs = Pairs(folder)
    opening = time.perf_counter() - begin
    rng = np.random.default_rng(1)
    index = pairs.windows(length, "full")
    draws: list[Windows] = [index.sample(rng, batch) for _ in range(rounds)]
    for windows in draws:
        pairs.gather(windows, ["obs/obs"])  # the file comes into the page cache, if it is not there yet
    anonymous = rss_anon() - before

    file = h5py.File(folder / "dataset.h5")
    dataset: Any = file["obs/obs"]
    # Rows of dataset.h5 are those of the shards one after the other.
    memory = dataset[:]
    segments = pairs.segments()
    shard_rows = np.bincount(segments["shard"], segments["length"]).astype(np.int64)
    offset = np.cumsum(shard_rows) - shard_rows
    rows = [windows.rows.T + offset[windows.shard] for windows in draws]
    for windows, at in zip(draws[:20], rows, strict=False):
        np.testing.assert_array_equal(pairs.gather(windows, ["obs/obs"])["obs/obs"], memory[at])

    steps = np.arange(length)[:, None]

    def through_h5py(i: int) -> np.ndarray:
        return np.stack([dataset[row : row + length] for row in rows[i][0].tolist()], axis=1)

    def drawn_in_memory(i: int) -> None:
        for begin in rng.integers(len(memory) - length, size=(DRAWN_AT_ONCE, batch)):
            _ = memory[begin + steps]

    def drawn_from_pairs(i: int) -> None:
        for windows in index.sample_batches(rng, batch, DRAWN_AT_ONCE):
            pairs.gather(windows, ["obs/obs"])

    fast = interleaved(
        {"memory": lambda i: memory[rows[i]], "pairs": lambda i: pairs.gather(draws[i], ["obs/obs"])}, rounds
    )
    drawn = interleaved(
        {"memory, drawn": drawn_in_memory, "pairs, drawn": drawn_from_pairs}, -(-rounds // DRAWN_AT_ONCE)
    )
    fast |= {name: seconds / DRAWN_AT_ONCE for name, seconds in drawn.items()}
    slow = interleaved({"h5py": through_h5py}, 5)
    file.close()
    return {**fast, **slow}, opening, anonymous


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of each dataset")
    parser.add_argument("--image", type=int, default=0, help="camera frames of that many pixels a side, alone")
    parser.add_argument("--frames", type=int, default=200_000, help="how many of them")
    parser.add_argument("--batch", type=int, default=128, help="windows per batch")
    parser.add_argument("--length", type=int, default=10, help="steps per window")
    parser.add_argument("--rounds", type=int, default=1000, help="batches over which the median is taken")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where to write; the system's temporary folder if left out"
    )
    args = parser.parse_args()

    rows, num_bytes = ROWS, int(args.gigabytes * 1e9)
    if args.image:
        rows = {f"{args.image}x{args.image}x3 uint8": Group((args.image, args.image, 3), dtype="uint8")}
        num_bytes = args.frames * row_bytes_of(schema_of(*rows.values()))
    table = Table(title=f"random windows, batch {args.batch} x {args.length}, {1e-9 * num_bytes:.3g} GB")
    for column in (
        "row",
        "memory us",
        "pairs us",
        "ratio",
        "h5py us",
        "drawn: memory",
        "pairs",
        "ratio",
        "open s",
        "anon MiB",
    ):
        table.add_column(column, justify="right")
    writing = Table(title=f"writing, {NUM_ENVS} envs, 9 fields, shards of 256 MiB, hashing included")
    for column in ("row", "us per step", "MB/s", "RssAnon MiB"):
        writing.add_column(column, justify="right")
    for name, group in rows.items():
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            base = rss_anon()
            micros, speed, highest = write(Path(folder) / "pairs", group, num_bytes)
            writing.add_row(name, f"{micros:.1f}", f"{speed:.0f}", f"{highest - base:.0f}")
            seconds, opening, anonymous = measure(Path(folder) / "pairs", args.batch, args.length, args.rounds)
        us = {key: f"{1e6 * value:.0f}" for key, value in seconds.items()}
        drawn = us["memory, drawn"], us["pairs, drawn"], f"{seconds['memory, drawn'] / seconds['pairs, drawn']:.2f}"
        ratio = f"{seconds['memory'] / seconds['pairs']:.2f}"
        table.add_row(name, us["memory"], us["pairs"], ratio, us["h5py"], *drawn, f"{opening:.1f}", f"{anonymous:.0f}")
    console = Console(width=120)
    console.print(table)
    console.print(writing)
    versions = f"numpy {np.__version__}, h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}"
    console.print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}")


if __name__ == "__main__":
    main()
