"""How the samples of `ursa eval` are made: as `ursa sample`, `--image` and `ursa extend` do."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ursa_cli import sample_plan
from ursa_cli.clip_batch import ClipTask
from ursa_cli.clips import Clip
from ursa_cli.options.sampling import SamplingOptions
from ursa_cli.prompt_warnings import prompt_warnings
from ursa_cli.terminal import output

if TYPE_CHECKING:
    from ursa_cli.sample_plan import PlacedModel, Plan
    from ursa_core.batches.resume import Item
    from ursa_core.clips.extension import Extension
    from ursa_core.clips.given import Given
    from ursa_core.evaluation.suites.suite import PlannedFile
    from ursa_core.media import Frames


def _prompt_of(given: Mapping[str, Any]) -> str:
    return str(given["prompt"])


class EvalTask(ClipTask):
    """One clip or image a file, as `ursa sample` makes it.

    Args:
        suite: its name.
        model: in its place.
        sampling: options of every sample.
        batch_size: samples in one pass at most.
    """

    num_samples = 1
    """Samples that a file shows."""

    def __init__(
        self, suite: str, model: "PlacedModel", sampling: SamplingOptions, batch_size: int
    ) -> None:
        self._sampling = sampling
        super().__init__(f"eval {suite}", model, self._clip, _prompt_of, batch_size)
        self._has_warned = False

    def _clip(self, given: Mapping[str, Any], path: Path) -> "Clip":
        options = replace(self._sampling, seed=given["seed"])
        target = sample_plan.Target(str(path), None)
        plan = sample_plan.make_plan(
            self._model, options, given["prompt"], [target], self.num_samples
        )
        return Clip(plan)

    def settle_file(self, file: "PlannedFile", seed: int, path: Path) -> dict[str, Any]:
        """All options of a file; its shape is what completeness is checked by.

        Raises:
            UrsaError: it can't be made.
        """
        options = self.settle({"prompt": file.prompt, "seed": seed}, path)
        shape = self._plans[path].settings.shape
        return {**options, "pixel_shape": [shape.frames, shape.height, shape.width]}

    def _read_again(self, item: "Item") -> Clip:
        return Clip(self._plans[item.path])

    def _warn(self, item: "Item") -> None:
        """Tell of what the model can't take of the first such prompt; suites have hundreds."""
        warnings = prompt_warnings(self._bundle, self._wanted(item))
        if warnings and not self._has_warned:
            self._has_warned = True
            output.warn(f"{item.path.name}: {warnings[0]}; other prompts aren't told of")


class OneByOne(EvalTask):
    """Files that are made in a way of their own, each by itself."""

    def pack_key(self, item: "Item") -> Hashable:
        """Items never share a pass."""
        return item.key

    def make(
        self, items: "Sequence[Item]", on_step: Callable[[int], None]
    ) -> "Iterator[tuple[Item, dict[str, Any]]]":
        """Make each item and write it."""
        from ursa_core.media import write_media

        for item in items:
            self._warn(item)
            plan = self._plans[item.path]
            frames = self._frames(item, plan, lambda *_: on_step(1))
            write_media(item.path, frames, plan.settings.fps, item.options, plan.crf)
            self._written(item)
            yield item, {}

    def _frames(self, item: "Item", plan: "Plan", on_step: Callable[..., None]) -> "Frames":
        raise NotImplementedError

    def _written(self, item: "Item") -> None:
        """Called once the file is there."""


class GridTask(OneByOne):
    """Four images in a 2×2 grid, as DPG-Bench reads them."""

    num_samples = 4

    def settle_file(self, file: "PlannedFile", seed: int, path: Path) -> dict[str, Any]:
        """All options of a grid, whose sides are twice an image's."""
        from ursa_core.errors import ShapeError

        options = super().settle_file(file, seed, path)
        _, height, width = options["pixel_shape"]
        if height != width:
            raise ShapeError(
                f"DPG-Bench cuts squares, and images are {height}x{width}",
                f"give a square size, as --size {min(height, width)}x{min(height, width)}",
            )
        return {**options, "pixel_shape": [1, 2 * height, 2 * width]}

    def num_steps(self, item: "Item") -> int:
        """Steps of the four images."""
        return self.num_samples * super().num_steps(item)

    def _frames(self, item: "Item", plan: "Plan", on_step: Callable[..., None]) -> "Frames":
        from ursa_core.evaluation.suites.dpg import grid
        from ursa_core.sampling.generate import decode, generate

        made = generate(self._bundle, plan.wanted, on_step)
        return grid([decode(self._bundle, each.codes) for each in made])


class ImageTask(OneByOne):
    """A video from a first frame, which is scaled and cropped to its size."""

    def settle_file(self, file: "PlannedFile", seed: int, path: Path) -> dict[str, Any]:
        """All options of a video, its image's digest among them."""
        from ursa_core.errors import ShapeError

        options = super().settle_file(file, seed, path)
        if options["pixel_shape"][0] == 1:
            raise ShapeError("a video of 1 frame is the given image alone", "give more --frames")
        given = {"file": str(file.image), "sha256": _digest(file.image), "frame": 0}
        return {**options, "given": {"files": [given], "cond": "lock", "cond_noise": 0.0}}

    def _frames(self, item: "Item", plan: "Plan", on_step: Callable[..., None]) -> "Frames":
        from ursa_core.sampling.generate import decode, generate

        given = self._given(item, plan)
        grid = self._bundle.grid(plan.settings.shape)
        conditioning = given.conditioning(self._bundle, grid)
        (made,) = generate(self._bundle, plan.wanted, on_step, conditioning=conditioning)
        return given.shown(decode(self._bundle, made.codes))

    def _given(self, item: "Item", plan: "Plan") -> "Given":
        from ursa_core.clips.given import Given, read_image

        file = item.options["given"]["files"][0]["file"]
        return Given({0: read_image(file, plan.settings.shape, fit=True)}, "lock", 0.0)


@cache
def _digest(image: Path) -> str:
    from ursa_core.files import digest_of

    return digest_of(image)


class LongTask(OneByOne):
    """A clip made longer in rounds, which are kept beside the record until it is written.

    Args:
        num_frames: of the whole clip.
        rounds: folder that rounds are kept in.
        others: as those of `EvalTask`.
    """

    def __init__(
        self,
        suite: str,
        model: "PlacedModel",
        sampling: SamplingOptions,
        num_frames: int,
        rounds: Path,
    ) -> None:
        super().__init__(suite, model, sampling, 1)
        self._num_frames, self._rounds = num_frames, rounds

    def settle_file(self, file: "PlannedFile", seed: int, path: Path) -> dict[str, Any]:
        """All options of a clip, how it is made longer among them."""
        from dataclasses import asdict

        options = super().settle_file(file, seed, path)
        extension = self._extension(path, file.prompt)
        extension.check()
        _, height, width = options["pixel_shape"]
        extended = {key: value for key, value in asdict(extension).items() if key != "prompts"}
        return {
            **options,
            "extension": extended,
            "pixel_shape": [self._num_frames, height, width],
        }

    def num_steps(self, item: "Item") -> int:
        """Steps of the first clip and of all rounds."""
        extension = self._extension(item.path, item.options["prompt"])
        steps = super().num_steps(item)
        of_rounds = (extension.steps_of(index, steps) for index in range(extension.num_rounds))
        return steps + sum(of_rounds)

    def _extension(self, path: Path, prompt: str) -> "Extension":
        from ursa_core.clips.extension import Extension, default_overlap

        settings, stride = self._plans[path].settings, self._model.found.strides.temporal
        window = settings.frames
        return Extension(
            window,
            self._num_frames,
            window,
            default_overlap(window, stride),
            (prompt,),
            before=False,
            chain="tokens" if settings.chain == "tokens" else "pixels",
            schedule="together",
            stride=stride,
            cond="lock",
            cond_noise=0.0,
        )

    def _frames(self, item: "Item", plan: "Plan", on_step: Callable[..., None]) -> "Frames":
        from ursa_core.bundle.bundle import tokenizer_identity
        from ursa_core.clips.extend import extend
        from ursa_core.sampling.generate import decode, generate

        (made,) = generate(self._bundle, plan.wanted, on_step)
        frames = decode(self._bundle, made.codes)
        extension = self._extension(item.path, plan.wanted.prompt)
        store = self._store(item)
        self._rounds.mkdir(parents=True, exist_ok=True)
        identity = tokenizer_identity(self._bundle.folder)
        store.open({**item.options, "tokenizer": identity, "fps": plan.settings.fps}, fresh=False)

        def on_round(resumed: bool) -> None:
            for _ in range(plan.num_steps if resumed else 0):
                on_step()

        codes = made.codes
        _, longer = extend(
            self._bundle, frames, extension, plan.wanted, store, on_step, on_round, codes
        )
        return longer

    def _written(self, item: "Item") -> None:
        self._store(item).remove()

    def tidy(self, item: "Item") -> None:
        """Delete the rounds of a video that is written."""
        self._store(item).remove()

    def _store(self, item: "Item") -> "Any":
        from ursa_core.clips.round_store import RoundStore

        return RoundStore(str(self._rounds / f"{item.index:05d}"))
