"""`ursa sample --replay`: the values that a file was made by, read from the file."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from ursa_core.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ursa_core.adapters import Adapter

_PLACEMENT = ("device", "dtype", "offload", "compiled")
_BESIDE = {*_PLACEMENT, "model", "model_identity", "fps", "crf", "ursa", "index"}
"""What metadata tell besides the options of sampling."""
_SOMETIMES = {"tokenizer", "lora"}
"""What they tell of some files alone."""


@dataclass(frozen=True)
class Replay:
    """What a file was made by.

    Attributes:
        path: of the file.
        values: by the names of the command's parameters, model, device and dtype among them.
        num: clips of its run.
        index: its place among them.
        model_identity: digits of the model's files.
        adapters: sha256 of each adapter's weights, by its path.
    """

    path: str
    values: dict[str, Any]
    num: int
    index: int
    model_identity: str
    adapters: dict[str, str]

    def check_adapters(self, adapters: "Sequence[Adapter]") -> None:
        """Refuse adapters that aren't those that made the file.

        Raises:
            UsageError: one has other weights now.
        """
        for adapter in adapters:
            before = self.adapters[str(adapter.folder)]
            if adapter.sha256 != before:
                raise UsageError(
                    f"{self.path} was made with the adapter {adapter.folder} when its weights were"
                    f" {before[:16]}; they are {adapter.sha256[:16]}",
                    "get those weights, or name an adapter with --lora to make another video",
                )

    def check_model(self, name: str, identity: str) -> None:
        """Refuse a model that isn't the one that made the file.

        Raises:
            UsageError: it has other files now.
        """
        if identity != self.model_identity:
            raise UsageError(
                f"{self.path} was made by the model {self.values['model']} when its files were"
                f" {self.model_identity}; {name} is {identity}",
                "get those files, or name a model with --model to make another video with it",
            )


def read_replay(path: str) -> Replay:
    """What a file of `ursa sample` was made by.

    Raises:
        DataError: the file can't be read or doesn't tell, or tells of another version.
    """
    from ursa_core import __version__
    from ursa_core.media import read_media
    from ursa_core.sampling.generate import GenerateOptions

    told = read_media(path, max_frames=1).metadata
    known = {field.name for field in fields(GenerateOptions)} | _BESIDE
    lacking = sorted(known - told.keys())
    if lacking:
        what = "how it was made" if "prompt" not in told or "seed" not in told else lacking[0]
        raise DataError(
            f"{path} doesn't tell {what}",
            "give a file as ursa sample wrote it; encoding it anew loses what it tells",
        )
    if told["ursa"] != __version__:
        raise DataError(
            f"{path} was made by ursa {told['ursa']}, this is {__version__}",
            "install that version to make it again",
        )
    more = sorted(key for key in told.keys() - known - _SOMETIMES if told[key] is not None)
    if more:
        raise DataError(
            f"{path} was made with {', '.join(more)}, which can't be replayed",
            "give the command that made it again",
        )
    try:
        low, high = told["guidance_interval"]
        given = {
            **{field.name: told[field.name] for field in fields(GenerateOptions)},
            "size": f"{told['height']}x{told['width']}",
            "guidance_interval": f"{low!r}:{high!r}",
            "top_p": 1.0 if told["top_p"] is None else told["top_p"],
            **{name: told[name] for name in ("fps", "crf", "model", *_PLACEMENT)},
        }
        num, index = int(given.pop("num")), int(told["index"])
        adapters = {str(each["path"]): str(each["sha256"]) for each in told.get("lora", ())}
        given["lora"] = [f"{each['path']}:{each['scale']!r}" for each in told.get("lora", ())]
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(f"what {path} tells of itself is damaged", "replay another") from error
    del given["height"], given["width"]
    return Replay(path, given, num, index, str(told["model_identity"]), adapters)
