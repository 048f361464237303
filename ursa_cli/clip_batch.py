"""Batches of `ursa sample` and `ursa interpolate`: clips, packed where their options agree."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ursa_cli.prompt_warnings import prompt_warnings
from ursa_cli.terminal import output
from ursa_core.errors import DataError

if TYPE_CHECKING:
    from ursa_cli.clips import Clip
    from ursa_cli.sample_plan import PlacedModel, Plan
    from ursa_core.batches.resume import Item
    from ursa_core.bundle.bundle import Bundle
    from ursa_core.sampling.batching import Packer
    from ursa_core.sampling.denoise import OnStep
    from ursa_core.sampling.generate import GenerateOptions


class ClipTask:
    """What a command that makes clips brings to a batch.

    Args:
        name: of the command.
        model: in its place.
        clip_of: a clip, its files read, from what its line gives and where it is written.
        title_of: what a clip is called after, from what its line gives.
        tokens: folder for the codes; None saves none.
        preview: steps from one preview to the next; 0 is none.
        batch_size: clips in one pass at most.
    """

    def __init__(
        self,
        name: str,
        model: "PlacedModel",
        clip_of: "Callable[[Mapping[str, Any], Path], Clip]",
        title_of: Callable[[Mapping[str, Any]], str],
        batch_size: int,
        tokens: Path | None = None,
        preview: int = 0,
    ) -> None:
        from ursa_core.bundle.hub import name_of

        self.name = name
        self.model = name_of(model.found.folder, exact=True)
        self.model_identity = model.identity
        self._model = model
        self._clip_of, self.title = clip_of, title_of
        self._tokens, self._preview, self._batch_size = tokens, preview, batch_size
        # Frames aren't kept, which might not fit into memory: files are read again when it is
        # their turn.
        self._lines: dict[Path, Mapping[str, Any]] = {}
        self._plans: dict[Path, Plan] = {}
        self._keys: dict[Path, Hashable] = {}
        self._warned: set[str] = set()
        self._told = False

    def settle(self, given: Mapping[str, Any], path: Path) -> dict[str, Any]:
        """All options of a clip, as its file will tell them.

        Raises:
            UrsaError: it can't be made.
        """
        from ursa_core.sampling.batching import pack_key

        clip = self._clip_of(given, path)
        clip.plan.check_memory(self._batch_size)
        self._lines[path], self._plans[path] = given, clip.plan
        shared = None if clip.given is None else clip.given.pack_key
        self._keys[path] = pack_key(clip.plan.wanted), shared
        return {**clip.provenance, "index": 0}

    def num_steps(self, item: "Item") -> int:
        """Steps that a clip takes."""
        return self._plans[item.path].num_steps

    def pack_key(self, item: "Item") -> Hashable:
        """Equal for clips that may share a pass."""
        return self._keys[item.path]

    def make(
        self, items: "Sequence[Item]", on_step: Callable[[int], None]
    ) -> "Iterator[tuple[Item, dict[str, Any]]]":
        """Generate, decode and write clips of one key."""
        from ursa_core.clips.preview import Preview
        from ursa_core.tokens.token_files import save_tokens

        clips = {item.path: self._read_again(item) for item in items}
        bundle = self._bundle
        for item in items:
            given = clips[item.path].given
            for note in [] if given is None else given.notes:
                output.warn(f"{item.path.name}: {note}")
            self._warn(item)
        passes = self._packer.passes([self._wanted(item) for item in items])
        if not (self._packer.is_exact or self._told):
            self._told = True
            output.note("packs would differ in the last bit here: clips are sampled one by one")
        rest = iter(items)
        for together in passes:
            own = [next(rest) for _ in range(len(together))]
            preview = Preview(bundle, together.grid, [item.path for item in own], self._preview)
            conditionings = [
                each
                for item in own
                for each in clips[item.path].conditionings(bundle, together.grid)
            ]
            steps = _each_of(len(own), on_step)
            codes = together.sample([0] * len(own), steps, preview, conditionings)
            preview.remove()
            for item, made in zip(own, codes, strict=True):
                if self._tokens is not None:
                    metadata = {**item.options, "tokenizer": self._identity}
                    save_tokens(self._tokens / f"{item.path.name}.safetensors", made, metadata)
                yield item, clips[item.path].write(bundle, made, item.path, item.options)

    def tidy(self, item: "Item") -> None:
        """Nothing is left beside a clip: its preview goes before it is written."""

    def _read_again(self, item: "Item") -> "Clip":
        """The clip as it was settled; DataError if a file has changed."""
        clip = self._clip_of(self._lines[item.path], item.path)
        if {**clip.provenance, "index": 0} != item.options:
            raise DataError(
                f"a file that {item.path.name} is made from has changed since the list was read",
                "give the same command again",
            )
        return clip

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
        from ursa_core.sampling.batching import Packer

        return Packer(self._bundle)

    @cached_property
    def _identity(self) -> str:
        from ursa_core.bundle.bundle import tokenizer_identity

        return tokenizer_identity(self._bundle.folder)


def _each_of(num: int, on_step: Callable[[int], None]) -> "OnStep":
    """Tells of a step of each of the clips of a pass."""
    return lambda *_: on_step(num)
