"""`ursa sample --replay`: the values that a file was made by, read from the file."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ursa_cli.options import batches as batch_options
from ursa_cli.options.sampling import SamplingOptions
from ursa_cli.sample_given import SampleGiven
from ursa_core.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ursa_core.bundle.adapters import Adapter

_PLACEMENT = ("device", "dtype", "offload", "compiled")
_BESIDE = {*_PLACEMENT, "model", "model_identity", "fps", "crf", "ursa", "index"}
"""What metadata tell besides the options of sampling."""
_SOMETIMES = {"tokenizer", "given", "strength", "lora"}


@dataclass(frozen=True)
class Replay:
    """What a file was made by.

    Attributes:
        path: of the file.
        values: by the names of the command's parameters, model, device and dtype among them.
        num: clips of its run.
        index: its place among them.
        model_identity: digits of the model's files.
        given: the image or video that it was made from, if any, and how.
        sha256: of that.
        adapters: sha256 of each adapter's weights, by its path.
    """

    path: str
    values: dict[str, Any]
    num: int
    index: int
    model_identity: str
    given: SampleGiven
    sha256: str | None
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

    def check_given(self, given: SampleGiven) -> None:
        """Refuse a file by the name of the one that was given, if it isn't that one.

        Args:
            given: what the clip is to be made from now, which may be another file.

        Raises:
            DataError: it is missing, or has changed.
        """
        from ursa_core.files import digest_of

        file = self.given.image or self.given.video
        if file is None or (self.given.image, self.given.video) != (given.image, given.video):
            return
        if not Path(file).exists() or digest_of(Path(file)) != self.sha256:
            what = "has changed since" if Path(file).exists() else "isn't here"
            option = "--image" if self.given.image else "--video"
            raise DataError(
                f"{file}, which {self.path} was made from, {what}",
                f"bring it back, or name another with {option} to make another video from it",
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
    maker = _other_maker(told)
    if maker:
        raise DataError(
            f"{path} was made by ursa {maker}, and only what ursa sample made can be replayed",
            "give the command that made it again",
        )
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
        del given["height"], given["width"]
        num, index = int(given.pop("num")), int(told["index"])
        adapters = {str(each["path"]): str(each["sha256"]) for each in told.get("lora", ())}
        given["lora"] = [f"{each['path']}:{each['scale']!r}" for each in told.get("lora", ())]
        _check(given, num, index)
        media, sha256 = _media(told)
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise DataError(f"what {path} tells of itself is damaged", "replay another") from error
    identity = str(told["model_identity"])
    return Replay(path, given, num, index, identity, media, sha256, adapters)


def _check(values: Mapping[str, Any], num: int, index: int) -> None:
    """Refuse values that aren't of their option's type, since a file may tell anything.

    Raises:
        TypeError: for them.
        ValueError: for an index out of range.
    """
    if not 0 <= index < num:
        raise ValueError(index)
    kinds = {"prompt": str, **batch_options.columns(SamplingOptions)}
    for name, value in values.items():
        kind = (int, float) if kinds[name] is float else kinds[name]
        is_number = not isinstance(value, bool) or kind is bool
        if not (isinstance(value, kind) and is_number) and (name, value) != ("motion", None):
            raise TypeError(name)


def _other_maker(told: Mapping[str, Any]) -> str | None:
    """The command that made a file, if it is another; by what it alone tells."""
    if "own_frames" in told:
        return "extend"
    given = told.get("given")
    return "interpolate" if isinstance(given, dict) and len(given.get("files", ())) > 1 else None


def _media(told: Mapping[str, Any]) -> tuple[SampleGiven, str | None]:
    """The image or video that metadata tell of, and its sha256."""
    given = told.get("given")
    if given is None:
        return SampleGiven(), None
    (file,) = given["files"]
    name, sha256 = str(file["file"]), str(file["sha256"])
    if told.get("strength") is not None:
        strength, source_fps = float(told["strength"]), file.get("source_fps")
        source_fps = None if source_fps is None else float(source_fps)
        own = SampleGiven(video=name, strength=strength, fit=True, source_fps=source_fps)
        return own, sha256
    cond, noise = str(given["cond"]), float(given["cond_noise"])
    return SampleGiven(name, cond=cond, cond_noise=noise, fit=True), sha256
