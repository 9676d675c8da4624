"""Bodies in files of the user's own: each content is run once, and kept so that it can go with the policies of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from tscli import trust
from tscli.config import NetworkConfig, UserError
from tscli.light import execute

_modules: dict[str, ModuleType] = {}  # by the sha256 of their files
_sources: dict[str, bytes] = {}


def source_of(config: NetworkConfig) -> bytes:
    """The file as it was when these settings were made.

    Raises:
        UserError: it has changed since, before it was run.
    """
    if config.sha256 not in _sources:
        source = Path(config.kind).read_bytes()
        if hashlib.sha256(source).hexdigest() != config.sha256:
            raise UserError(f"{config.kind} has changed while it was being read: start anew")
        _sources[config.sha256] = source
    return _sources[config.sha256]


def own_module(config: NetworkConfig, classes: Mapping[str, type]) -> ModuleType:
    """The module of such a file, which has to have these classes; a copy of it may then run as well.

    Raises:
        UserError: it is not Python, cannot run, or has no such classes.
    """
    path = Path(config.kind)
    if config.sha256 not in _modules:
        source = source_of(config)
        trust.allow(config.sha256, keep=False)
        try:
            module = execute(path, source, f"body_{config.sha256[:8]}")
        except SyntaxError as error:
            raise UserError(f"{path}, line {error.lineno} is not valid Python: {error.msg}") from None
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"{path} cannot be run ({reason}); a body has one file, with all that it needs") from error
        for name, base in classes.items():
            found = getattr(module, name, None)
            if not (isinstance(found, type) and issubclass(found, base)):
                raise UserError(f"{path} is no body: it needs a `class {name}({base.__name__})`")
        _modules[config.sha256] = module
    return _modules[config.sha256]
