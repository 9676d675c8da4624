"""What comes from outside as text: words of the command line, YAML, JSON. Read at one place, and within bounds.

A file that is too large, too deep or no plain data is one line of a `UserError`, before anything is made of it.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

MOST_CHARACTERS = 4096  # of a word; a path has no more, and Python reads no number of more than 4300 digits
_YAML_BYTES, _JSON_BYTES = 2**20, 2**28  # settings are written by hand, a sidecar has a line for each episode
_MOST_DEPTH, _MOST_ENTRIES = 40, 20_000  # of a YAML file, each use of an alias counted
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")  # lone surrogates are bytes that were no UTF-8


def refuse(message: str) -> NoReturn:
    """Raise a UserError. With it comes pydantic, for which the first page and the search for scripts must not wait."""
    from tscli.config import UserError

    raise UserError(message) from None


def check_words(words: Sequence[str]) -> None:
    """Refuse what no setting, name or path can be, before anything looks at it.

    Raises:
        UserError: a word is too long, or has control characters, line breaks or bytes that are no UTF-8.
    """
    for word in words:
        start = ascii(word[:40] + "..." * (len(word) > 40))
        if len(word) > MOST_CHARACTERS:
            refuse(f"argument {start} has {len(word)} characters: {MOST_CHARACTERS} at most, use --config FILE")
        if _CONTROL.search(word) or "\n" in word or "\t" in word:
            refuse(f"argument {start} has a line break, a control character or no UTF-8: write it without")


def read_yaml(path: Path) -> Any:
    """The content of a YAML file: mappings, lists, texts, numbers, booleans, null.

    A date, `010` and `1:30` are text, as in YAML 1.2.

    Raises:
        UserError: it is missing, too large or too deep, is not YAML, has a tag (`!!int`) or a key twice; with the line.
    """
    import yaml

    text = _read(path, _YAML_BYTES, "YAML")
    loader = _loader()
    try:
        depth = 0
        for number, event in enumerate(yaml.parse(text, Loader=loader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MOST_DEPTH or number > 2 * _MOST_ENTRIES:
                what = f"more than {_MOST_DEPTH} levels or {_MOST_ENTRIES} entries"
                raise yaml.MarkedYAMLError(problem=what, problem_mark=event.start_mark)
            if getattr(event, "tag", None) is not None:
                raise yaml.MarkedYAMLError(
                    problem=f"the tag {event.tag!r}: leave it out, plain values are enough",
                    problem_mark=event.start_mark,
                )
        data = yaml.load(text, Loader=loader)
        _check_plain(data)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        refuse(f"{path}{line} is not valid YAML: {_brief(error.problem)}")
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        refuse(f"{path} is not valid YAML: {_brief(error)}")
    return data


def read_mapping(path: Path) -> dict[str, Any]:
    """The content of a YAML file that is a mapping.

    Raises:
        UserError: it is none; see `read_yaml`.
    """
    data = read_yaml(path)
    if not isinstance(data, dict):
        refuse(f"{path} holds no mapping: write one `key: value` per line")
    return data


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file that is an object.

    Raises:
        FileNotFoundError: it is missing.
        UserError: it cannot be read, is too large or too deep, or is no JSON object.
    """
    return parse_json(_read(path, _JSON_BYTES, "JSON"), str(path))


def parse_json(text: str, owner: str) -> dict[str, Any]:
    """A text as a JSON object; `owner` is where it stands.

    Raises:
        UserError: it is none.
    """
    try:
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("no JSON object")
        if "\\u" in text:
            json.dumps(data, ensure_ascii=False).encode()  # a lone surrogate
    except (ValueError, RecursionError) as error:
        refuse(f"{owner} is damaged ({_brief(error)}): restore it from a copy")
    return data


def _read(path: Path, most: int, kind: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
        if len(data) <= most:
            return data.decode("utf-8-sig")
    except FileNotFoundError:
        if kind == "JSON":
            raise
        refuse(f"cannot read {path}: No such file")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is not valid {kind}, which is UTF-8 text"
        refuse(f"cannot read {path}: {reason}")
    refuse(f"cannot read {path}: it is larger than {most // 2**20} MiB, which no {kind} file of ours is")


def _brief(error: Any) -> str:
    text = " ".join(str(error).split())
    return ascii(text)[1:-1] if _CONTROL.search(text) else text[:200]


def _check_plain(value: Any) -> None:
    left = _MOST_ENTRIES

    def walk(value: Any, depth: int) -> None:
        nonlocal left
        left -= 1
        if left < 0 or depth > _MOST_DEPTH:
            raise ValueError(f"more than {_MOST_ENTRIES} entries or {_MOST_DEPTH} levels, its aliases written out")
        if isinstance(value, str) and _CONTROL.search(value):
            raise ValueError(f"a control character or half a character in {value[:40]!a}")
        if isinstance(value, dict):
            for key, entry in value.items():
                walk(key, depth + 1)
                walk(entry, depth + 1)
        elif isinstance(value, (list, tuple)):
            for entry in value:
                walk(entry, depth + 1)

    walk(value, 0)


@functools.cache
def _loader() -> Any:
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C, where PyYAML has it

    class Loader(base):
        """YAML's plain types, each key once."""

        yaml_implicit_resolvers = {  # noqa: RUF012 - a class attribute of yaml's
            first: [(tag, regexp) for tag, regexp in rules if tag.rpartition(":")[2] in ("bool", "null", "merge")]
            for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise yaml.MarkedYAMLError(problem="a key that is no plain word", problem_mark=key.start_mark)
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands there twice", problem_mark=key.start_mark)
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    # Less than YAML 1.1 has, which reads `1:30` as 90 and `010` as 8; not more, so that what was text stays text.
    decimal = r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|[-+]?\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
    special = r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
    Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9_]*)$"), [*"-+0123456789"])
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"(?:{decimal}|{special})$"), [*"-+0123456789."])
    return Loader
