"""Kill every stage at random moments, resume it, and compare it with the same stage that nobody interrupted.

    python benchmarks/random_kills.py --minutes 10 --seed 1

Runs in a temporary folder. Exit code 1 if a run ended otherwise, or a resume was refused.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[1] / "tests" / "tools"
sys.path.append(str(TOOLS))

from stage_tools import (  # noqa: E402 - found by the line above
    ADVISOR,
    BC,
    COLLECT,
    DAGGER,
    FINETUNE,
    GPO,
    ONLINE,
    SITT,
    SMALL,
    TEACHER,
    fingerprint,
)

from tscli.runs import list_runs  # noqa: E402

LONGER = ("--total-steps", "2560")
STAGES = {
    "train-teacher": (*TEACHER, *LONGER),
    "collect": (*COLLECT, "--episodes", "30", "--shard-mb", "0.002", "--noise", "0.1"),
    "distill-bc": (*BC, *SMALL, "--num-epochs", "12"),
    "distill-dagger": (*DAGGER, *SMALL, *LONGER, "--student", "rnn", "--shard-mb", "0.002"),
    "distill-advisor": (*ADVISOR, *SMALL, *LONGER, "--student", "rnn"),
    "distill-online": (*ONLINE, *SMALL, *LONGER, "--student", "rnn"),
    "finetune": (*FINETUNE, *LONGER),
    "gpo": (*GPO, *SMALL, *LONGER),
    "sitt": (*SITT, *LONGER, "--align-every", "2"),
}


def tscli(command: tuple[str, ...], folder: Path, after: float | None = None) -> tuple[int, str]:
    """Run a command; kill it after so many seconds, if it still runs. Its exit code and what it said."""
    words = [sys.executable, "-m", "tscli", *command, "--quiet", "--threads", "1"]
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        said = process.communicate(timeout=after)[1]
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        said = process.communicate()[1]
    return process.returncode, said.strip()


def main() -> int:
    """All stages in turn until the time is over; a table of how often each was killed and ended alike."""
    parser = argparse.ArgumentParser(description="Kill every stage at random moments, resume it, and compare.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng, ends = random.Random(options.seed), time.monotonic() + options.minutes * 60
    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name) / "base"
        base.mkdir()
        for command in (TEACHER, COLLECT, (*DAGGER, *SMALL)):
            assert tscli(command, base)[0] == 0
        expected, seconds = {}, {}
        for stage, command in STAGES.items():
            folder = Path(shutil.copytree(base, Path(name) / stage))
            began = time.monotonic()
            code, said = tscli(command, folder)
            assert code == 0, said
            seconds[stage], expected[stage] = time.monotonic() - began, fingerprint(list_runs(folder / "runs")[-1])
        while time.monotonic() < ends:
            for stage, command in STAGES.items():
                folder = Path(shutil.copytree(base, Path(name) / "tried"))
                before = len(list_runs(folder / "runs"))
                code, said, kills = -signal.SIGKILL, "", 0
                every = ("--checkpoint-every", rng.choice(("0", "0", "0.2")))
                while code == -signal.SIGKILL:
                    begun = len(list_runs(folder / "runs")) > before
                    after = rng.uniform(0.2, 1.0) * seconds[stage] if kills < 4 else None
                    resumed = (command[0], "--resume") if begun else (*command, *every)
                    code, said = tscli(resumed, folder, after)
                    kills += code == -signal.SIGKILL
                counts[stage, "kills"] += kills
                counts[stage, "runs"] += 1
                run = list_runs(folder / "runs")[-1]
                if code == 2 and "no unfinished" in said and run.status == "finished":  # killed after its last line
                    code = 0
                equal = code == 0 and fingerprint(run) == expected[stage]
                counts[stage, "equal" if equal else "other"] += 1
                if not equal:
                    print(f"{stage}: exit code {code}: {said}", flush=True)
                    shutil.copytree(folder, Path.cwd() / f"killed-{stage}", dirs_exist_ok=True)
                shutil.rmtree(folder)
    for stage in STAGES:
        print(
            f"{stage:16} " + ", ".join(f"{counts[stage, what]} {what}" for what in ("runs", "kills", "equal", "other"))
        )
    return 1 if any(what == "other" and n for (_, what), n in counts.items()) else 0


if __name__ == "__main__":
    sys.exit(main())
