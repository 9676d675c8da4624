"""Run a policy exported by `tscli export --format onnx`: needs numpy and onnxruntime, nothing of tscli.

    python run_exported.py policy.onnx                       # what it needs; its latency on made-up readings
    python run_exported.py policy.onnx --env CartPole-v1     # drives a Gymnasium environment (needs gymnasium)

On a robot:

    policy = ExportedPolicy("policy.onnx")
    policy.reset()                            # at the start of an episode
    while True:                               # every policy.control_dt seconds
        action = policy.act({"state": readings})
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

try:
    import numpy as np
    import onnxruntime
except ImportError as missing:
    raise SystemExit(f"this program needs numpy and onnxruntime ({missing}): pip install onnxruntime") from None


class ExportedPolicy:
    """One policy for one robot; it carries its hidden state and its previous action.

    Attributes:
        about: all that is known of the policy: inputs with names and units, action space, where it comes from.
        control_dt: seconds between actions in training; None where its env had no physical time.
        params: the latest distribution's parameters: {"logits": [K]}, {"mean": [D], "std": [D]} or {"alpha": [D],
            "beta": [D]}.
    """

    def __init__(self, path: str, threads: int = 1):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.about = json.loads(self.session.get_modelmeta().custom_metadata_map["tscli"])
        if self.about["format"] != 1:
            raise ValueError(f"{path} has format {self.about['format']}, this program reads 1")
        self.control_dt = self.about["control_dt"]
        self.inputs = {entry["name"]: entry for entry in self.about["inputs"]}
        self.outputs = [entry["name"] for entry in self.about["outputs"]]
        self.params: dict[str, np.ndarray] = {}
        self.reset()

    def reset(self) -> None:
        """Begin an episode: no memory and no previous action."""
        self.hidden = (
            np.zeros((1, *self.inputs["hidden"]["shape"][1:]), np.float32) if "hidden" in self.inputs else None
        )
        self.previous_action = None

    def act(self, readings: dict[str, np.ndarray]) -> np.ndarray:
        """Readings of each group, whole and flat (images [H, W, C] uint8) -> the action, within its bounds."""
        feed = {}
        for name in self.inputs:
            if name == "hidden":
                feed[name] = self.hidden
            elif name == "vector":
                feed[name] = self.vector(readings)
            else:
                feed[name] = np.asarray(readings[name], np.uint8)[None]
        found = dict(zip(self.outputs, self.session.run(None, feed), strict=True))
        self.hidden = found.pop("next_hidden", None)
        action = found.pop("action")[0]
        self.params = {name: value[0] for name, value in found.items()}
        self.previous_action = action
        return action

    def vector(self, readings: dict[str, np.ndarray]) -> np.ndarray:
        """The policy's vector [1, D]: each part's entries, in order."""
        pieces = []
        for part in self.inputs["vector"]["parts"]:
            if part["group"] == "previous_action":
                pieces.append(self.encoded_action(part["size"]))
            else:
                pieces.append(np.asarray(readings[part["group"]], np.float32).ravel()[part["index"]])
        return np.concatenate(pieces).astype(np.float32)[None]

    def encoded_action(self, size: int) -> np.ndarray:
        """The previous action as the policy was trained to see it: [size]."""
        if self.previous_action is None:
            return np.zeros(size, np.float32)
        space = self.about["action"]
        if space["kind"] == "continuous":
            out = np.array(self.previous_action, np.float32)
            for i, (low, high) in enumerate(zip(space["low"], space["high"], strict=True)):
                if low is not None and high is not None:
                    out[i] = (out[i] - (low + high) / 2) / ((high - low) / 2)
            return out
        columns = []
        for n, choice in zip(space["nvec"], np.atleast_1d(self.previous_action), strict=True):
            columns.append([2.0 * choice - 1.0] if n == 2 else np.eye(n)[int(choice)])
        return np.concatenate(columns).astype(np.float32)


def made_up(policy: ExportedPolicy, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Readings of the right shapes and no meaning."""
    readings = {}
    for name, entry in policy.inputs.items():
        if name == "vector":
            for part in entry["parts"]:
                if part["group"] != "previous_action":
                    size = max([*part["index"], len(readings.get(part["group"], [])) - 1]) + 1
                    readings[part["group"]] = rng.standard_normal(size).astype(np.float32)
        elif name != "hidden":
            readings[name] = rng.integers(0, 256, entry["shape"][1:], np.uint8)
    return readings


def readings_of(observation: Any, name: str = "") -> dict[str, np.ndarray]:
    """A Gymnasium observation under the names that tscli gives its groups, which are those in the policy's file.

    A Dict gives one group per entry, nested names joined by a dot; any other gives `state`, or `image` for a picture.
    """
    if isinstance(observation, dict):
        found = {}
        for key, value in observation.items():
            found |= readings_of(value, f"{name}.{key}" if name else key)
        return found
    value = np.asarray(observation)
    return {name or ("image" if value.dtype == np.uint8 and value.ndim > 1 else "state"): value}


def misfit(policy: ExportedPolicy, env: Any) -> str:
    """What keeps the policy from acting in a Gymnasium environment; "" where nothing does."""
    wanted, space = policy.about["action"], env.action_space
    choices = getattr(space, "nvec", None) if hasattr(space, "nvec") else getattr(space, "n", None)
    if wanted["kind"] == "continuous":
        fits = choices is None and space.shape == (len(wanted["low"]),)
    else:
        fits = choices is not None and np.array_equal(np.atleast_1d(choices), wanted["nvec"])
    if not fits:
        return f"it takes the actions {space}, the policy gives {wanted['kind']} {wanted['nvec'] or wanted['low']}"
    seen = readings_of(env.observation_space.sample())
    for name, entry in policy.inputs.items():
        if "parts" not in entry and name != "hidden":  # a picture
            shape, found = tuple(entry["shape"][1:]), seen.get(name)
            if found is None or found.shape != shape or found.dtype != np.uint8:
                shown = ", ".join(f"{key} {value.shape} {value.dtype}" for key, value in seen.items())
                return f"it shows {shown}, the policy sees pictures {name} {shape} uint8"
        for part in entry.get("parts", []):
            group = part["group"]
            if group != "previous_action" and (group not in seen or seen[group].size <= max(part["index"])):
                return f"it shows {', '.join(seen)}, the policy sees {max(part['index']) + 1} entries of {group}"
    return ""


def drive(policy: ExportedPolicy, env_id: str, episodes: int, seed: int) -> list[float]:
    """The return of each episode; the first one is reset with the seed, and the others go on from there."""
    import gymnasium  # a robot does not need it

    try:
        env, returns = gymnasium.make(env_id), list[float]()
    except (gymnasium.error.Error, ImportError) as error:
        raise SystemExit(f"--env {env_id}: {error}") from None
    if reason := misfit(policy, env):
        raise SystemExit(f"--env {env_id}: {reason}")
    for episode in range(episodes):
        observation, _ = env.reset(seed=seed if episode == 0 else None)
        policy.reset()
        total, done = 0.0, False
        while not done:
            action = policy.act(readings_of(observation)).reshape(env.action_space.shape)
            observation, reward, terminated, truncated, _ = env.step(action.astype(env.action_space.dtype))
            total, done = total + float(reward), terminated or truncated
        returns.append(total)
    env.close()
    return returns


def say(policy: ExportedPolicy) -> None:
    """Print what the policy sees and does."""
    print(f"{policy.about['task']}, {policy.about['run']}, tscli {policy.about['tscli']}")
    for entry in policy.about["inputs"]:
        for part in entry.get("parts", [entry]):
            names = part.get("names", [])
            units = part.get("units") or [""] * len(names)
            words = ", ".join(f"{name} [{unit}]" if unit else name for name, unit in zip(names, units, strict=True))
            print(
                f"  sees  {part.get('group', part.get('name'))} {part.get('size', part.get('shape', [])[1:])} {words}"
            )
    action = policy.about["action"]
    print(f"  acts  {action['kind']} {action['names'] or action['nvec'] or [action['low'], action['high']]}")


def measure(policy: ExportedPolicy, steps: int = 2000) -> str:
    """Microseconds per action, on readings that mean nothing."""
    rng, times = np.random.default_rng(1), []
    for _ in range(steps):
        readings = made_up(policy, rng)
        start = time.perf_counter()
        policy.act(readings)
        times.append(time.perf_counter() - start)
    median, p95 = np.percentile(np.array(times[steps // 10 :]) * 1e6, [50, 95])
    return f"{median:.0f} us median, {p95:.0f} us 95th percentile, per action"


def main() -> None:
    """Say what the policy needs; then drive an environment, or measure its latency."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path")
    parser.add_argument("--env", help="Gymnasium id to drive; module:id imports the module first")
    parser.add_argument("--episodes", type=int, default=100, help="how many, at least 2")
    parser.add_argument("--seed", type=int, default=0, help="of the first episode's reset")
    args = parser.parse_args()
    if args.episodes < 2 or args.seed < 0:
        parser.error(f"--episodes {args.episodes} --seed {args.seed}: at least 2 episodes, and no seed below 0")
    try:
        policy = ExportedPolicy(args.path)
    except Exception as error:  # onnxruntime's own, of which there are many
        raise SystemExit(f"{args.path} is no policy exported by `tscli export --format onnx`: {error}") from None
    say(policy)
    if args.env is None:
        print(measure(policy))
        return
    returns = drive(policy, args.env, args.episodes, args.seed)
    print(
        f"{args.env}: return {np.mean(returns):.2f}, deviation {np.std(returns, ddof=1):.2f}, {len(returns)} episodes"
    )


if __name__ == "__main__":
    main()
