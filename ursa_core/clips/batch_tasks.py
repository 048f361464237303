"""What `sample`, `interpolate` and `extend` bring to a batch (see `batches.run.BatchTask`)."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from ursa_core.batches.run import BatchItem, MadeItems, OnStep
from ursa_core.bundle.bundle import Bundle, load_tokenizer
from ursa_core.bundle.options import SEED, number_of, option_types
from ursa_core.clips.clip import decoded, kept_frames, previews
from ursa_core.clips.extend import ExtendPlan, plan_extension
from ursa_core.clips.plan import PlacedModel, Plan
from ursa_core.clips.requests import ExtensionOptions
from ursa_core.clips.round_store import RoundStore
from ursa_core.devices import pick_device
from ursa_core.errors import DataError
from ursa_core.media import Frames, write_media
from ursa_core.sampling.batching import Packer, pack_key
from ursa_core.sampling.generate import decode
from ursa_core.tokenizers.visual import VisualTokenizer, decode_frames
from ursa_core.tokens.token_files import save_tokens

Warn = Callable[[str], None]
_AT_HOME = {
    "_bundle", "_own_tokenizer", "_packer", "_plan_of", "title", "_warn_of", "_note", "_alike",
}  # fmt: skip
_AGAIN = "give the same command again"


class _ModelTask:
    """What tasks share: the model, loaded once, and warnings, each given once."""

    def __init__(self, name: str, model: PlacedModel, warn: Warn) -> None:
        self.name, self.model, self.model_identity = name, model.name, model.identity
        self._placed, self._warn_of = model, warn
        self.model_folder = model.found.folder
        self._warned: set[str] = set()

    def _warn(self, item: BatchItem, warnings: Sequence[str]) -> None:
        for warning in (each for each in warnings if each not in self._warned):
            self._warned.add(warning)
            self._warn_of(f"{item.path.name}: {warning}")

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs to make items that are ready."""
        return {name: value for name, value in vars(self).items() if name not in _AT_HOME}

    def moved(self, device: str, root: Path, warn: Warn) -> Self:
        """The task in another process, on its device; files of its own go below ``root``."""
        self._placed, self._warn_of = replace(self._placed, device=pick_device(device)), warn
        return self

    @cached_property
    def _bundle(self) -> Bundle:
        return self._placed.load()


class ClipTask(_ModelTask):
    """Makes clips, packed where their options agree, at most ``batch_size`` in one pass.

    From what a line gives, ``title_of`` says what its clip is called after, and ``plan_of``, which
    is given its path too, reads the files and plans it. Codes go to the folder ``tokens``;
    ``preview`` counts the steps from one preview to the next, 0 is none. ``note`` receives what
    there is to say besides warnings.
    """

    def __init__(
        self,
        name: str,
        model: PlacedModel,
        plan_of: Callable[[Mapping[str, Any], Path], Plan],
        title_of: Callable[[Mapping[str, Any]], str],
        batch_size: int,
        warn: Warn,
        tokens: Path | None = None,
        preview: int = 0,
        note: Warn = lambda _: None,
    ) -> None:
        super().__init__(name, model, warn)
        self._plan_of, self.title, self._noted = plan_of, title_of, False
        self._tokens = tokens and tokens.absolute()
        self._preview, self._batch_size, self._note = preview, batch_size, note
        self._alike: dict[Hashable, tuple[Plan, Hashable, dict[str, Any]]] = {}

    def settle(self, given: Mapping[str, Any], file: str) -> tuple[dict[str, Any], Any]:
        """All options of a clip, as its file will record them, and its plan and pack key.

        The plan is without frames, which might not fit into memory: files are read again when it
        is their turn. Lines that differ in prompt and seed alone have one plan, with another's.
        """
        own: dict[str, Any] = {"prompt": given.get("prompt"), "seed": given.get("seed")}
        others = file.rpartition(".")[2]
        if given.keys() != own.keys():
            others += repr({name: given[name] for name in given if name not in own})
        if others in self._alike and None not in own.values():
            plan, key, options = self._alike[others]
            number_of("seed", own["seed"], SEED, int)
            return {**options, **own}, (plan, key)
        plan = self._plan_of(given, Path(file))
        plan.check_memory(self._batch_size)
        key = pack_key(plan.options), plan.cond_frames and plan.cond_frames.pack_key
        options = plan.metadata()
        if not (plan.cond_frames or self._tokens or self._preview) and len(self._alike) < 1000:
            self._alike[others] = plan, key, options
        return options, (replace(plan, cond_frames=None), key)

    def num_steps(self, item: BatchItem) -> int:
        """Steps that a clip takes."""
        return int(item.plan[0].num_steps)

    def pack_key(self, item: BatchItem) -> Hashable:
        """Equal for clips that may share a pass."""
        return item.plan[1]

    def make(self, items: Sequence[BatchItem], on_step: OnStep) -> MadeItems:
        """Generate, decode and write clips of one key."""
        bundle, planned = self._bundle, [(item, self._planned(item)) for item in items]
        for item, plan in planned:
            self._warn(item, plan.warnings(bundle))
        passes = self._packer.passes([plan.request() for _, plan in planned])
        if not (self._packer.is_exact or self._noted):
            self._noted = True
            self._note("packs would differ in the last bit here: clips are sampled one by one")
        rest = iter(planned)
        for together in passes:
            num = len(together)
            own = list(islice(rest, num))
            paths = [item.path for item, _ in own]
            each = (plan.conditioning(bundle) for _, plan in own)
            given = [conditioning for conditioning in each if conditioning is not None]
            with previews(bundle, together.grid, paths, self._preview) as take:
                codes = together.sample(lambda *_, num=num: on_step(num), take, given)
            for (item, plan), made in zip(own, codes, strict=True):
                if self._tokens is not None:
                    metadata = {**item.options, "tokenizer": self._placed.tokenizer}
                    save_tokens(self._tokens / f"{item.path.name}.safetensors", made, metadata)
                clip = decoded(bundle, plan, made)
                write_media(item.path, clip.frames, clip.fps, item.options, clip.crf)
                yield item, kept_frames(plan, item.path, clip.frames)

    def tidy(self, item: BatchItem) -> None:
        """Nothing is left next to a clip: its preview is deleted before it is written."""

    def ready(self, item: BatchItem) -> BatchItem:
        """The clip with its given frames in its plan."""
        return replace(item, plan=(self._read_again(item), item.plan[1]), is_ready=True)

    def moved(self, device: str, root: Path, warn: Warn) -> Self:
        """As of any task; the codes go below ``root``, too."""
        self._note = lambda _: None
        if self._tokens is not None:
            self._tokens = root / str(self._tokens).lstrip("/")
            self._tokens.mkdir(parents=True)
        return super().moved(device, root, warn)

    def _planned(self, item: BatchItem) -> Plan:
        own = {name: item.options[name] for name in ("prompt", "seed")}
        return replace(item.plan[0], model=self._placed, **own)

    def _read_again(self, item: BatchItem) -> Plan:
        """The plan as it was settled; DataError if a file has changed."""
        plan = self._plan_of(item.given, item.path)
        if plan.metadata() != item.options:
            what = f"a file that {item.path.name} is made from"
            raise DataError(f"{what} has changed since the list was read", _AGAIN)
        return plan

    @cached_property
    def _packer(self) -> Packer:
        return Packer(self._bundle)


class ExtendTask(_ModelTask):
    """Makes clips longer, one after the other, each with rounds of its own.

    What a line gives replaces ``options`` and ``wanted``; ``fresh`` deletes rounds that are kept.
    """

    def __init__(
        self,
        model: PlacedModel,
        options: Mapping[str, Any],
        wanted: ExtensionOptions,
        fresh: bool,
        warn: Warn,
    ) -> None:
        super().__init__("extend", model, warn)
        self._options, self._wanted, self._fresh = options, wanted, fresh

    def title(self, given: Mapping[str, Any]) -> str:
        """The first prompt; the clip's name without one."""
        prompts = given.get("prompts", [given.get("prompt", "")])
        return prompts[0] or Path(given.get("clip", "")).stem

    def settle(self, given: Mapping[str, Any], file: str) -> tuple[dict[str, Any], Any]:
        """All options of a video, refusing rounds made by others, and the steps of each round."""
        planned = self._plan(given, file)
        if not self._fresh:
            RoundStore(file).check(planned.of_rounds)
        return planned.provenance, planned.round_steps

    def num_steps(self, item: BatchItem) -> int:
        """Steps of the rounds that aren't done."""
        store = RoundStore(item.file)
        return sum(n for k, n in enumerate(item.plan) if self._fresh or not store.holds(k))

    def pack_key(self, item: BatchItem) -> Hashable:
        """Each video is made alone."""
        return item.file

    def make(self, items: Sequence[BatchItem], on_step: OnStep) -> MadeItems:
        """Make videos, each in the rounds that are missing."""
        vars(self).pop("_own_tokenizer", None)
        bundle = self._bundle
        for item in items:
            planned: ExtendPlan = item.plan
            planned = replace(planned, plan=replace(planned.plan, model=self._placed))
            self._warn(item, [*planned.warnings, *planned.prompt_warnings(bundle)])
            store = RoundStore(item.file)
            store.open(planned.of_rounds, self._fresh)
            yield item, planned.make_file(bundle, store, item.file, lambda *_: on_step(1))

    def ready(self, item: BatchItem) -> BatchItem:
        """The video with the clip that it goes on from in its plan."""
        planned = self._plan(item.given, item.file)
        if planned.provenance != item.options:
            raise DataError(f"{planned.media.file} has changed since the list was read", _AGAIN)
        return replace(item, plan=planned, is_ready=True)

    def tidy(self, item: BatchItem) -> None:
        """Delete the rounds of a video that is written."""
        RoundStore(item.file).remove()

    def _plan(self, line: Mapping[str, Any], file: str) -> ExtendPlan:
        wanted = self._wanted.overridden(line)
        wanted.check()
        options = {**self._options, **{k: v for k, v in line.items() if k in option_types()}}
        return plan_extension(self._placed, options, wanted, file, self._decoded)

    def _decoded(self, codes: Tensor) -> Frames:
        """Frames by the tokenizer, which is alone while files are settled; no network is loaded."""
        if "_bundle" in vars(self):
            return decode(self._bundle, codes)
        return decode_frames(self._own_tokenizer, codes)

    @cached_property
    def _own_tokenizer(self) -> VisualTokenizer:
        return load_tokenizer(self._placed.found.folder, self._placed.device)[0]
