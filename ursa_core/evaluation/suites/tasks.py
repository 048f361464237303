"""How the samples of suites are made: as `sample`, its ``image`` and `extend` make clips."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any, Self

from ursa_core.batches.run import BatchItem, MadeItems, OnStep
from ursa_core.clips.batch_tasks import ClipTask, Warn
from ursa_core.clips.cond_frames import CondFrames, read_image
from ursa_core.clips.extend import Extension, default_overlap, extend
from ursa_core.clips.plan import PlacedModel, Plan, make_plan
from ursa_core.clips.round_store import RoundStore
from ursa_core.errors import ShapeError
from ursa_core.evaluation.suites.dpg import GRID, grid
from ursa_core.evaluation.suites.suite import PlannedFile
from ursa_core.files import digest_of
from ursa_core.media import Frames, write_media
from ursa_core.sampling.generate import decode, generate

Settled = tuple[dict[str, Any], tuple[Plan, Hashable]]
"""All options of a file, and its plan and pack key."""


class EvalTask(ClipTask):
    """One clip or image per file of ``suite``, as `sample` makes it, with the same ``options``."""

    num_samples = 1  # that a file shows

    def __init__(
        self, suite: str, model: PlacedModel, options: Mapping[str, Any], batch_size: int,
        warn: Warn,
    ) -> None:  # fmt: skip
        def plan_for(given: Mapping[str, Any], path: Path) -> Plan:
            own = {**options, "seed": given["seed"]}
            return make_plan(model, own, given["prompt"], str(path), self.num_samples)

        title_of = itemgetter("prompt")
        super().__init__(f"eval {suite}", model, plan_for, title_of, batch_size, warn)

    def settle_file(self, file: PlannedFile, seed: int, path: str) -> Settled:
        """All options of a file, its shape, which is checked in the end, among them; its plan."""
        options, planned = self.settle({"prompt": file.prompt, "seed": seed}, path)
        shape = planned[0].options.shape
        return {**options, "pixel_shape": [shape.frames, shape.height, shape.width]}, planned

    def _read_again(self, item: BatchItem) -> Plan:
        return item.plan[0]

    def _warn(self, item: BatchItem, warnings: Sequence[str]) -> None:
        """Warn of the first prompt that the model can't take; suites have hundreds."""
        if warnings and not self._warned:
            self._warned.add(warnings[0])
            self._warn_of(f"{item.path.name}: {warnings[0]}; those of other prompts aren't shown")


class _OneByOne(EvalTask):
    """Files that are made in a way of their own, none of which share a pass."""

    def pack_key(self, item: BatchItem) -> Hashable:
        return item.key

    def make(self, items: Sequence[BatchItem], on_step: OnStep) -> MadeItems:
        for item in items:
            plan = self._planned(item)
            self._warn(item, plan.warnings(self._bundle))
            frames, options = self._frames(item, plan, lambda *_: on_step(1)), plan.options
            write_media(item.path, frames, options.fps, item.options, options.crf)
            self.tidy(item)
            yield item, {}

    def _frames(self, item: BatchItem, plan: Plan, on_step: Callable[..., None]) -> Frames:
        conditioning = plan.conditioning(self._bundle)
        codes = generate(self._bundle, plan.request(), on_step, conditioning=conditioning)
        return plan.shown(decode(self._bundle, codes))


class GridTask(_OneByOne):
    """Four images in a 2×2 grid, as DPG-Bench reads them."""

    num_samples = GRID

    def settle_file(self, file: PlannedFile, seed: int, path: str) -> Settled:
        """All options of a grid, whose sides are twice an image's."""
        options, planned = super().settle_file(file, seed, path)
        _, height, width = options["pixel_shape"]
        if height != width:
            side = min(height, width)
            hint = f"give a square size, as `size={side}x{side}`"
            raise ShapeError(f"DPG-Bench cuts squares, and images are {height}x{width}", hint)
        return {**options, "pixel_shape": [1, 2 * height, 2 * width]}, planned

    def num_steps(self, item: BatchItem) -> int:
        """Steps of the four images."""
        return self.num_samples * super().num_steps(item)

    def _frames(self, item: BatchItem, plan: Plan, on_step: Callable[..., None]) -> Frames:
        made = (generate(self._bundle, plan.request(k), on_step) for k in range(plan.num))
        return grid([decode(self._bundle, codes) for codes in made])


class ImageTask(_OneByOne):
    """A video from a first frame, which is scaled and cropped to its size."""

    def settle_file(self, file: PlannedFile, seed: int, path: str) -> Settled:
        """All options of a video, its image's digest among them."""
        options, planned = super().settle_file(file, seed, path)
        if options["pixel_shape"][0] == 1:
            raise ShapeError("a video of 1 frame is the given image alone", "give more `frames`")
        given = {"file": str(file.image), "sha256": _digest(file.image), "frame": 0}
        of_image = {"files": [given], "cond": "lock", "cond_noise": 0.0}
        return {**options, "given": of_image}, planned

    def _read_again(self, item: BatchItem) -> Plan:
        plan = super()._read_again(item)
        file = item.options["given"]["files"][0]["file"]
        image = read_image(file, plan.options.shape, fit=True)
        return replace(plan, cond_frames=CondFrames({0: image}, "lock", 0.0))


_digest = cache(digest_of)


class LongTask(_OneByOne):
    """Clips of ``num_frames``, made longer in rounds, which are kept in the folder ``rounds``."""

    def __init__(
        self, suite: str, model: PlacedModel, options: Mapping[str, Any], num_frames: int,
        rounds: Path, warn: Warn,
    ) -> None:  # fmt: skip
        super().__init__(suite, model, options, 1, warn)
        self._num_frames, self._rounds = num_frames, rounds
        self._of_rounds = model.found.settings.extending(options)

    def settle_file(self, file: PlannedFile, seed: int, path: str) -> Settled:
        """All options of a clip, how it is made longer among them."""
        options, planned = super().settle_file(file, seed, path)
        extension = self._extension(planned[0])
        extension.check()
        extended = {**asdict(extension), **self._of_rounds}
        del extended["prompts"]
        shape = [self._num_frames, *options["pixel_shape"][1:]]
        return {**options, "extension": extended, "pixel_shape": shape}, planned

    def num_steps(self, item: BatchItem) -> int:
        """Steps of the first clip and of all rounds."""
        extension = self._extension(self._planned(item))
        steps = super().num_steps(item)
        return steps + sum(extension.steps_of(k, steps) for k in range(extension.num_rounds))

    def moved(self, device: str, root: Path, warn: Warn) -> Self:
        """As of any task; rounds are kept below ``root``, until the clip is made."""
        self._rounds = root / "rounds"
        return super().moved(device, root, warn)

    def _extension(self, plan: Plan) -> Extension:
        window, found = plan.options.frames, self._placed.found
        stride = found.strides.temporal
        return Extension(
            window, self._num_frames, window, default_overlap(window, stride), (plan.prompt,),
            before=False, chain=found.settings.chain, schedule="together", stride=stride,
            cond="lock", cond_noise=0.0,
        )  # fmt: skip

    def _frames(self, item: BatchItem, plan: Plan, on_step: Callable[..., None]) -> Frames:
        bundle, request, store = self._bundle, plan.request(), self._store(item)
        codes = generate(bundle, request, on_step)
        request = replace(request, options=replace(plan.options, **self._of_rounds))
        frames, extension = decode(bundle, codes), self._extension(plan)
        self._rounds.mkdir(parents=True, exist_ok=True)
        own = {"tokenizer": self._placed.tokenizer, "fps": plan.options.fps}
        store.open({**item.options, **own}, fresh=False)

        def on_round(resumed: bool) -> None:
            for _ in range(plan.num_steps if resumed else 0):
                on_step()

        return extend(bundle, frames, extension, request, store, on_step, on_round, codes)[1]

    def tidy(self, item: BatchItem) -> None:
        """Delete the rounds of a video that is written."""
        self._store(item).remove()

    def _store(self, item: BatchItem) -> RoundStore:
        return RoundStore(str(self._rounds / f"{item.index:05d}"))
