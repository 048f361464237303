"""What a file of `sample` was made by, read from the file, so that it can be made again."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ursa_core import __version__
from ursa_core.bundle.options import SamplingOptions, option_types
from ursa_core.clips.requests import SampleInputs
from ursa_core.configs import parsed
from ursa_core.errors import DataError, UsageError
from ursa_core.files import digest_of
from ursa_core.media import read_media

if TYPE_CHECKING:
    from ursa_core.clips.plan import PlacedModel

_PLACEMENT: dict[str, type] = {
    "model": str, "device": str, "dtype": str, "offload": bool, "compiled": bool
}  # fmt: skip
RECORDED = {field.name for field in fields(SamplingOptions)} | {
    "prompt", "seed", "num", "index", "model_identity", "ursa", *_PLACEMENT
}  # fmt: skip
"""What every file of `sample` records."""
_SOMETIMES = {"tokenizer", "given", "strength", "lora"}


@dataclass(frozen=True)
class Replay:
    """What a file was made by: it is clip ``index`` of ``num``.

    Options are by name as users give them, and so is the placement: model, device, number format
    and adapters. ``digests`` are those of the file given and of the weights of adapters, by path.
    """

    path: str
    options: dict[str, Any]
    placement: dict[str, Any]
    num: int
    index: int
    model_identity: str
    inputs: SampleInputs
    digests: dict[str, str]

    def check_model(self, model: "PlacedModel", named: Collection[str]) -> None:
        """Refuse, with a UsageError, another model or adapters than then, unless newly named."""
        name = self.placement["model"]
        if "model" not in named and model.identity != self.model_identity:
            raise UsageError(
                f"{self.path} was made by the model {name} when its files were"
                f" {self.model_identity}; {name} is {model.identity}",
                "get those files, or name a model with `model` to make another video with it",
            )
        for adapter in () if "lora" in named else model.adapters:
            before = self.digests[str(adapter.folder)]
            if adapter.sha256 != before:
                raise UsageError(
                    f"{self.path} was made with the adapter {adapter.folder} when its weights were"
                    f" {before[:16]}; they are {adapter.sha256[:16]}",
                    "get those weights, or name an adapter with `lora` to make another video",
                )

    def check_inputs(self, inputs: SampleInputs) -> None:
        """Refuse, with a DataError, a file of the same name as then that isn't that one."""
        before = self.inputs.image or self.inputs.video
        if before is None or (self.inputs.image, self.inputs.video) != (inputs.image, inputs.video):
            return
        file = Path(str(before))
        if re.fullmatch(r"<\w+>", str(before)):
            raise DataError(
                f"{self.path} was made from frames that Python handed over, not from a file",
                "name a file with `image` or `video` to make another video from it",
            )
        if not file.exists() or digest_of(file) != self.digests[str(before)]:
            what = "has changed since" if file.exists() else "isn't here"
            option = "image" if self.inputs.image else "video"
            hint = f"bring it back, or name another with `{option}` to make another video from it"
            raise DataError(f"{before}, which {self.path} was made from, {what}", hint)


def read_replay(path: str) -> Replay:
    """What a file of `sample` was made by; DataError if it isn't recorded, or can't be read."""
    recorded = read_media(path, max_frames=1).metadata
    again, given = "give the command that made it again", recorded.get("given")
    is_between = isinstance(given, dict) and len(given.get("files", ())) > 1
    if "own_frames" in recorded or is_between:  # what those commands alone record
        maker = "extend" if "own_frames" in recorded else "interpolate"
        fault = f"{path} was made by ursa {maker}, and only what ursa sample made can be replayed"
        raise DataError(fault, again)
    lacking = sorted(RECORDED - recorded.keys())
    if lacking:
        is_ours = {"prompt", "seed"} <= recorded.keys()
        raise DataError(
            f"{path} doesn't record {lacking[0] if is_ours else 'how it was made'}",
            "give a file as ursa sample wrote it; encoding it again loses what it records",
        )
    if recorded["ursa"] != __version__:
        hint = "install that version to make it again"
        raise DataError(f"{path} was made by ursa {recorded['ursa']}, this is {__version__}", hint)
    others = recorded.keys() - RECORDED - _SOMETIMES
    more = sorted(key for key in others if recorded[key] is not None)
    if more:
        raise DataError(f"{path} was made with {', '.join(more)}, which can't be replayed", again)
    try:
        return _replay(path, recorded)
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise DataError(f"what {path} records of itself is damaged", "replay another") from error


def _replay(path: str, recorded: Mapping[str, Any]) -> Replay:
    """What metadata record, each value checked for its type, since a file may hold anything."""
    low, high = recorded["guidance_interval"]
    own = {
        "size": f"{recorded['height']}x{recorded['width']}",
        "guidance_interval": f"{low!r}:{high!r}",
        "top_p": 1.0 if recorded["top_p"] is None else recorded["top_p"],
    }
    types = option_types()
    options = {name: own.get(name, recorded.get(name)) for name in types}
    if options["motion"] is None:  # the model's own
        del options["motion"]
    placement = {name: recorded[name] for name in _PLACEMENT}
    prompt, num, index = recorded["prompt"], int(recorded["num"]), int(recorded["index"])
    given = {**options, **placement, "prompt": prompt}
    for name, kind in {**types, **_PLACEMENT, "prompt": str}.items():
        if name in given:
            parsed(kind, given[name])
    if not 0 <= index < num:
        raise ValueError(index)
    adapters = recorded.get("lora", ())
    placement["lora"] = [f"{each['path']}:{each['scale']!r}" for each in adapters]
    digests = {str(each["path"]): str(each["sha256"]) for each in adapters}
    identity, inputs = str(recorded["model_identity"]), SampleInputs(prompt=prompt)
    if recorded.get("given") is not None:
        (file,) = recorded["given"]["files"]
        name, fps = str(file["file"]), file.get("source_fps")
        digests[name] = str(file["sha256"])
        if recorded.get("strength") is None:
            cond, noise = str(recorded["given"]["cond"]), float(recorded["given"]["cond_noise"])
            inputs = replace(inputs, image=name, cond=cond, cond_noise=noise, fit=True)
        else:
            strength, fps = float(recorded["strength"]), None if fps is None else float(fps)
            inputs = replace(inputs, video=name, strength=strength, fit=True, source_fps=fps)
    return Replay(path, options, placement, num, index, identity, inputs, digests)
