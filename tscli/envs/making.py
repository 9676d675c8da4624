"""How a Gymnasium env is found, built and wrapped; whatever goes wrong in other people's code is said in one line."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from tscli.config import UserError, did_you_mean
from tscli.envs.contract import first_line

# What to install for the families of environments that come with Gymnasium, and for one that does not.
_EXTRAS = {
    "gymnasium.envs.box2d": "tscli[box2d]",
    "gymnasium.envs.mujoco": "tscli[mujoco]",
    "gymnasium.envs.phys2d": "gymnasium[jax]",
    "gymnasium.envs.tabular": "gymnasium[jax]",
    "minigrid": "tscli[minigrid]",
}
_DRAWN_BY_PYGAME = ("gymnasium.envs.classic_control", "gymnasium.envs.toy_text", "gymnasium.envs.box2d")

Wrappers = Sequence[tuple[str, dict[str, Any]]]  # where each one's class is, and its arguments


def import_named(module: str, owner: str) -> Any:
    """The module that an env's settings name: code of other people that an env runs comes in here.

    Raises:
        UserError: it cannot be imported; begins with the owner.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        extra = _EXTRAS.get(module.partition(".")[0])
        fix = f": pip install '{extra}'" if extra else ""
        if not extra and isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]:
            fix = f": put {error.name}.py beside a task's YAML file that names it, or its folder into PYTHONPATH"
        raise UserError(f"{owner}: module {module} cannot be imported ({first_line(error)}){fix}") from error


def find_spec(env_id: str) -> EnvSpec:
    """What Gymnasium knows of an id, after the import of the module that stands before it.

    Raises:
        UserError: no such module or id.
    """
    module, _, name = env_id.rpartition(":")
    imported = import_named(module, f'env "{env_id}"') if module else None
    if name in gymnasium.registry:
        return gymnasium.registry[name]
    if imported is not None and isinstance(getattr(imported, name, None), type):
        fix = f'gymnasium.register("{name}-v0", {name}) at its end, and {module}:{name}-v0 as the id'
        raise UserError(f'unknown Gymnasium id "{env_id}": {module} does not register its class {name}: write {fix}')
    namespace = name.rpartition("/")[0]
    if namespace and not any(known.startswith(f"{namespace}/") for known in gymnasium.registry):
        raise UserError(
            f'unknown Gymnasium id "{env_id}": no imported package has ids in "{namespace}/", '
            f'so write its module in front, as in "module:{name}"'
        )
    own = [known for known, spec in gymnasium.registry.items() if module and _made_in(spec, module)]
    versions = [known for known in gymnasium.registry if known.lower().startswith(f"{name.lower()}-v")]
    close = versions[-1:] or own or ([] if module else difflib.get_close_matches(name, gymnasium.registry, n=1))
    unknown = f"{module} registers none" if module else "gymnasium.pprint_registry() lists the known ones"
    hint = did_you_mean(name, close) if close else unknown
    raise UserError(f'unknown Gymnasium id "{env_id}": {hint}')


def _made_in(spec: EnvSpec, module: str) -> bool:
    where = spec.entry_point
    where = where.partition(":")[0] if isinstance(where, str) else getattr(where, "__module__", "")
    return f"{where}.".startswith(f"{module.partition('.')[0]}.")


def build(env_id: str, given: str, spec: EnvSpec, make: Callable[[], Any]) -> Any:
    """Call a constructor that runs code of the environment; what goes wrong in it becomes one line.

    Args:
        env_id: for the error line.
        given: what the settings gave it, for the error line.
        spec: of the environment.
        make: the call.

    Raises:
        UserError: a package is missing, or the constructor raised.
    """
    try:
        return make()
    except UserError:
        raise
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        why = first_line(error)
        entry_point = str(spec.entry_point or spec.vector_entry_point)
        extra = next((extra for module, extra in _EXTRAS.items() if entry_point.startswith(module)), None)
        why = why.partition(", you can install it")[0] if extra else why  # Gymnasium's advice, which is not all of it
        fix = f": pip install '{extra}'" if extra else ""
        raise UserError(f"{env_id} needs a package that is not installed ({why}){fix}") from error
    except (Exception, SystemExit) as error:
        why = first_line(error).partition(" was raised from")[0]  # Gymnasium repeats the arguments after that
        raise UserError(f"{env_id} cannot be built{given}: {why}") from error


def wrapper_class(name: str, owner: str) -> Callable[..., gymnasium.Env]:
    """A wrapper by its dotted name; without a dot it is one of Gymnasium's.

    Raises:
        UserError: there is none of that name.
    """
    module, _, last = name.replace(":", ".").rpartition(".")
    module = module or "gymnasium.wrappers"
    found = getattr(import_named(module, f'{owner}: wrapper "{name}"'), last, None)
    if isinstance(found, type) and issubclass(found, gymnasium.Wrapper):
        return found
    names = [key for key, value in vars(importlib.import_module(module)).items() if isinstance(value, type)]
    raise UserError(f'{owner}: {module} has no wrapper "{last}": {did_you_mean(last, names)}')


def wrapped(env: gymnasium.Env, wrappers: Wrappers, drop: Sequence[str], owner: str) -> gymnasium.Env:
    """An env in its wrappers, the first one innermost, without the entries of its observation to be dropped.

    Raises:
        UserError: a wrapper that is none, or does not take its arguments; an entry that is not there.
    """
    for name, arguments in wrappers:
        make = wrapper_class(name, owner)
        try:
            env = make(env, **arguments)
        except Exception as error:
            raise UserError(f"{owner}: wrapper {name} does not take {arguments}: {first_line(error)}") from error
    if not drop:
        return env
    entries = list(env.observation_space.spaces) if isinstance(env.observation_space, spaces.Dict) else []
    for name in drop:
        if name not in entries:
            raise UserError(f'{owner}: drop: its observation has no entry "{name}": {did_you_mean(name, entries)}')
    return gymnasium.wrappers.FilterObservation(env, [name for name in entries if name not in drop])


def check_drawing(env_id: str, env: Any) -> None:
    """Refuse `render: true` at once where no picture can come of it."""
    modes = env.metadata.get("render_modes") or ()
    if "rgb_array" not in modes:
        raise UserError(
            f"{env_id} cannot draw pictures (its render modes: {', '.join(modes) or 'none'}): leave render false"
        )
    by_pygame = type(env.unwrapped).__module__.startswith(_DRAWN_BY_PYGAME)
    if by_pygame and importlib.util.find_spec("pygame") is None:
        raise UserError(f"drawing {env_id} needs pygame, which is not installed: pip install pygame")
