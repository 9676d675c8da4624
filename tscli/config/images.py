"""What a network's pictures go through before its body."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from tscli.config.base import Config, kind_shorthand

FILES = ("config.json", "model.safetensors")  # of a checkpoint, as transformers saves it


class ImageConfig(Config):
    """What pictures go through before the body: a small CNN that learns, or a frozen encoder."""

    kind: Literal["cnn", "dinov2"] = Field(
        default="cnn", description="cnn: small, learns with the rest; dinov2: a frozen DINOv2 (needs the extra vision)."
    )
    path: str = Field(
        default="",
        description="Folder of a DINOv2 checkpoint: config.json and model.safetensors. Nothing is fetched.",
    )
    sha256: str = Field(
        default="",
        validate_default=True,
        description="Of the checkpoint, found by itself.",
        json_schema_extra={"flag": False},
    )

    @property
    def is_frozen(self) -> bool:
        """Whether it never learns, so that its features are made once for each picture."""
        return self.kind != "cnn"

    @field_validator("path")
    @classmethod
    def _a_checkpoint_that_there_is(cls, value: str, info: ValidationInfo) -> str:
        if not value:
            return value
        folder = Path(value)
        if not folder.is_dir():
            raise ValueError("there is no such folder: give that of a checkpoint on this machine")
        for name in FILES:
            if not (folder / name).is_file():
                pickled = any(folder.glob("pytorch_model*.bin")) and name == "model.safetensors"
                why = "pickled weights are not read: save it with safetensors" if pickled else "it is no checkpoint"
                raise ValueError(f"that folder has no {name}, {why}")
        return str(folder.absolute())  # a run is read from other folders than the one it began in

    @field_validator("sha256")
    @classmethod
    def _the_checkpoint_is_as_it_was(cls, value: str, info: ValidationInfo) -> str:
        path = info.data.get("path")
        if not path:
            return ""
        try:
            found = checkpoint_hash(Path(path))
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from None
        if value not in ("", found):
            raise ValueError(f"{path} has changed since: restore it, or start anew")
        return found

    @model_validator(mode="after")
    def _kind_and_path_belong_together(self) -> ImageConfig:
        if self.kind == "cnn" and self.path:
            raise ValueError("a path is that of a frozen encoder: give the kind dinov2 as well")
        if self.kind != "cnn" and not self.path:
            raise ValueError(f"{self.kind} needs a path, the folder of a checkpoint on this machine")
        return self


def checkpoint_hash(folder: Path) -> str:
    """One sha256 for all files of a checkpoint.

    Raises:
        OSError: one cannot be read.
    """
    stats = [(folder / name).stat() for name in FILES]
    return _hash_version(folder, tuple((stat.st_mtime_ns, stat.st_size) for stat in stats))


@functools.lru_cache(maxsize=16)
def _hash_version(folder: Path, version: tuple[tuple[int, int], ...]) -> str:
    from tscli.files import file_hash  # which needs this room

    return hashlib.sha256("".join(file_hash(folder / name) for name in FILES).encode()).hexdigest()


# `--student.image cnn` is short for `--student.image.kind cnn`.
Image = Annotated[ImageConfig, BeforeValidator(kind_shorthand)]
