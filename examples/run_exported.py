"""Run a policy exported by `tscli export --format onnx`: needs numpy and onnxruntime, nothing of tscli.

    python run_exported.py policy.onnx        # says what it needs, runs it on made-up readings, measures its latency

On a robot:

    policy = ExportedPolicy("policy.onnx")
    policy.reset()                            # at the start of an episode
    while True:                               # every policy.control_dt seconds
        action = policy.act({"state": readings})
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import onnxruntime


class ExportedPolicy:
    """One policy for one robot; it carries its hidden state and its previous action.

    Attributes:
        about: all that is known of the policy: inputs with names and units, action space, where it comes from.
        control_dt: seconds between actions in training; None where its env had no physical time.
        params: the latest distribution's parameters: {"logits": [K]} or {"mean": [D], "std": [D]}.
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


def main(path: str, steps: int = 2000) -> None:
    """Say what the policy needs, run it, measure it."""
    policy, rng = ExportedPolicy(path), np.random.default_rng(1)
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
    times = []
    for _ in range(steps):
        readings = made_up(policy, rng)
        start = time.perf_counter()
        policy.act(readings)
        times.append(time.perf_counter() - start)
    median, p95 = np.percentile(np.array(times[steps // 10 :]) * 1e6, [50, 95])
    print(f"{median:.0f} us median, {p95:.0f} us 95th percentile, per action")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
