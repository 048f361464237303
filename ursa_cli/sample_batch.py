"""`ursa sample --from-file`: clips of a batch, packed where their options agree."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ursa_cli import output
from ursa_cli.prompt_warnings import prompt_warnings
from ursa_core.errors import UsageError

if TYPE_CHECKING:
    from ursa_cli.sample_plan import PlacedModel, Plan
    from ursa_core.batches.resume import Item
    from ursa_core.bundle import Bundle
    from ursa_core.sampling.denoise import OnStep
    from ursa_core.sampling.generate import GenerateOptions
    from ursa_core.sampling.packs import Packer


class SampleTask:
    """What `ursa sample` brings to a batch.

    Args:
        model: in its place.
        plan_of: the plan of one clip, from what its line gives and where it is written.
        tokens: folder for the codes; None saves none.
        preview: steps from one preview to the next; 0 is none.
        batch_size: clips in one pass at most.
    """

    name = "sample"

    def __init__(
        self,
        model: "PlacedModel",
        plan_of: "Callable[[Mapping[str, Any], Path], Plan]",
        tokens: Path | None,
        preview: int,
        batch_size: int,
    ) -> None:
        from ursa_core.hub import name_of

        self.model = name_of(model.found.folder, exact=True)
        self.model_identity = model.identity
        self._model = model
        self._plan_of, self._tokens, self._preview = plan_of, tokens, preview
        self._batch_size = batch_size
        self._plans: dict[Path, Plan] = {}
        self._warned: set[str] = set()
        self._told = False

    def settle(self, given: Mapping[str, Any], path: Path) -> dict[str, Any]:
        """All options of a clip, as its file will tell them.

        Raises:
            UrsaError: it can't be made.
        """
        if "prompt" not in given:
            raise UsageError("there is no prompt", 'give one; in JSON lines it may be ""')
        plan = self._plan_of(given, path)
        plan.check_memory(self._batch_size)
        self._plans[path] = plan
        return {**plan.provenance, "index": 0}

    def num_steps(self, item: "Item") -> int:
        """Steps that a clip takes."""
        return self._plans[item.path].num_steps

    def pack_key(self, item: "Item") -> Hashable:
        """Equal for clips that may share a pass."""
        from ursa_core.sampling.packs import pack_key

        return pack_key(self._wanted(item))

    def make(self, items: "Sequence[Item]", on_step: Callable[[int], None]) -> "Iterator[Item]":
        """Generate, decode and write clips of one key."""
        from ursa_core.data.token_files import save_tokens
        from ursa_core.media import write_media
        from ursa_core.sampling.generate import decode
        from ursa_core.sampling.preview import Preview

        bundle = self._bundle
        for item in items:
            self._warn(item)
        passes = self._packer.passes([self._wanted(item) for item in items])
        if not (self._packer.is_exact or self._told):
            self._told = True
            output.note("packs would differ in the last bit here: clips are sampled one by one")
        rest = iter(items)
        for together in passes:
            own = [next(rest) for _ in range(len(together))]
            preview = Preview(bundle, together.grid, [item.path for item in own], self._preview)
            codes = together.sample([0] * len(own), _each_of(len(own), on_step), preview)
            for item, made in zip(own, codes, strict=True):
                plan = self._plans[item.path]
                if self._tokens is not None:
                    self._tokens.mkdir(parents=True, exist_ok=True)
                    metadata = {**item.options, "tokenizer": self._identity}
                    save_tokens(self._tokens / f"{item.path.name}.safetensors", made, metadata)
                frames = decode(bundle, made)
                write_media(item.path, frames, plan.settings.fps, item.options, plan.crf)
                yield item
            preview.remove()

    def _wanted(self, item: "Item") -> "GenerateOptions":
        return self._plans[item.path].wanted

    def _warn(self, item: "Item") -> None:
        for warning in prompt_warnings(self._bundle, self._wanted(item)):
            if warning not in self._warned:
                self._warned.add(warning)
                output.warn(f"{item.path.name}: {warning}")

    @cached_property
    def _bundle(self) -> "Bundle":
        return self._model.load()

    @cached_property
    def _packer(self) -> "Packer":
        from ursa_core.sampling.packs import Packer

        return Packer(self._bundle)

    @cached_property
    def _identity(self) -> str:
        from ursa_core.bundle import tokenizer_identity

        return tokenizer_identity(self._bundle.folder)


def _each_of(num: int, on_step: Callable[[int], None]) -> "OnStep":
    """Tells of a step of each of the clips of a pass."""
    return lambda *_: on_step(num)
