"""ONNX files: written, run by onnxruntime, and read where their weights have kept their names."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import torch

from tscli.config import UserError
from tscli.interop import rsl_rl
from tscli.interop.export import KEY, Actor, Runner, quiet
from tscli.interop.weights import State


def require(what: str = "--format onnx", instead: str = ", or use --format torchscript") -> None:
    """Refuse to begin where `what` lacks a package; `instead` is what can be done without.

    Raises:
        UserError: names them, and how to install them.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{what} needs {', '.join(missing)}: pip install 'tscli[export]'{instead}")


def write(actor: Actor, path: Path, about: dict[str, Any]) -> None:
    """Write an ONNX file with a free batch axis; its weights are inside."""
    onnx = importlib.import_module("onnx")  # not installed with tscli itself
    batch = torch.export.Dim("batch", min=1)
    with quiet():
        own = [f"tscli.{name}" for name in actor.outputs]  # which no value inside is called: torch would not notice
        names: dict[str, Any] = {"input_names": list(actor.inputs), "output_names": own}
        shapes = (tuple({0: batch} for _ in actor.inputs),)
        program = torch.onnx.export(actor, actor.example(2), dynamo=True, dynamic_shapes=shapes, verbose=False, **names)
        assert program is not None
        model = program.model_proto
    inside = {name: f"{name}.inside" for name in actor.outputs}
    _rename(model.graph, inside | dict(zip(own, actor.outputs, strict=True)))
    onnx.helper.set_model_props(model, {KEY: json.dumps(about)})
    model.producer_name, model.producer_version = "tscli", about["tscli"]
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def _rename(graph: Any, names: dict[str, str]) -> None:
    """Rename values in place, wherever they are made, read or described."""
    for node in graph.node:
        node.input[:], node.output[:] = ([names.get(v, v) for v in values] for values in (node.input, node.output))
    for value in (*graph.value_info, *graph.output, *graph.initializer):
        value.name = names.get(value.name, value.name)


def load(path: Path, threads: int = 1) -> Runner:
    """The file as onnxruntime runs it on the CPU."""
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    return lambda inputs: list(session.run(None, dict(zip(names, inputs, strict=True))))


def read_metadata(path: Path) -> dict[str, Any] | None:
    """What `describe` wrote into an exported file; None where another program wrote it."""
    model = importlib.import_module("onnx").load(str(path), load_external_data=False)
    text = {entry.key: entry.value for entry in model.metadata_props}.get(KEY, "")
    return json.loads(text) if text else None


def read_weights(path: Path) -> tuple[State, Runner]:
    """The weights of a file whose exporter has kept their names, and the file as onnxruntime runs it.

    Raises:
        UserError: a package is missing, it is damaged, or its weights are rearranged.
    """
    require("importing an ONNX file", "")
    onnx: Any = importlib.import_module("onnx")
    try:
        about, model = read_metadata(path), onnx.load(str(path))
    except Exception as error:  # protobuf's own errors
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())[:120]}): export it again") from None
    if about is not None:
        raise UserError(
            f"{path} was exported by tscli, and an ONNX file has its weights rearranged: import the run's own "
            "policy, or export it with --format torchscript"
        )
    if not model.graph.node:
        raise UserError(f"{path} holds no network: export it again")
    if any(node.op_type in ("LSTM", "GRU") for node in model.graph.node):
        raise UserError(
            f"{path}: an ONNX file has its memory's weights rearranged: import the .pt that it was made from"
        )
    named = {e.name: torch.from_numpy(onnx.numpy_helper.to_array(e).copy()) for e in model.graph.initializer}
    # Parameters have a module's name before theirs; constants of the graph have none.
    state = {name: value for name, value in named.items() if value.is_floating_point() and "." in name}
    return state | rsl_rl.unfolded_deviation(model.graph.node, named), load(path)
