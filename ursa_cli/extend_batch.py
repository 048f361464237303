"""Batches of `ursa extend`: one clip after the other, each with rounds of its own."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ursa_cli import batch, batch_run, clips
from ursa_cli.extend_plan import ExtendPlan, plan_extension
from ursa_cli.options import sampling as shared
from ursa_cli.terminal import output
from ursa_core.errors import DataError

if TYPE_CHECKING:
    from ursa_cli.extend_plan import ExtendOptions
    from ursa_cli.options.batches import Batch
    from ursa_cli.sample_plan import PlacedModel
    from ursa_core.batches.resume import Item
    from ursa_core.bundle.bundle import Bundle
    from ursa_core.clips.round_store import RoundStore
    from ursa_core.tokenizers.visual import VisualTokenizer


class ExtendTask:
    """What `ursa extend` brings to a batch.

    Args:
        model: in its place.
        sampling: options that hold where a line gives none.
        wanted: likewise, how clips are made longer.
        fresh: delete the rounds that a stopped run has kept.
    """

    name = "extend"

    def __init__(
        self,
        model: "PlacedModel",
        sampling: shared.SamplingOptions,
        wanted: "ExtendOptions",
        fresh: bool,
    ) -> None:
        from ursa_core.bundle.hub import name_of

        self.model = name_of(model.found.folder, exact=True)
        self.model_identity = model.identity
        self._model, self._sampling, self._wanted = model, sampling, wanted
        self._fresh = fresh
        # Frames aren't kept, which might not fit into memory: a clip is read again when it is its
        # turn.
        self._lines: dict[Path, Mapping[str, Any]] = {}
        self._steps: dict[Path, list[int]] = {}
        self._warned: set[str] = set()
        self._is_loaded = False

    def title(self, given: Mapping[str, Any]) -> str:
        """The first prompt; the clip's name without one."""
        prompts = given.get("prompts", [given.get("prompt", "")])
        return prompts[0] or Path(given.get("clip", "")).stem

    def settle(self, given: Mapping[str, Any], path: Path) -> dict[str, Any]:
        """All options of a video, as its file will tell them.

        Raises:
            UrsaError: it can't be made, or not with the rounds that are kept.
        """
        planned = self._plan(given, path)
        if not self._fresh:
            _store(path).check(self._plan_of_rounds(planned))
        self._lines[path], self._steps[path] = given, planned.round_steps
        return planned.provenance

    def num_steps(self, item: "Item") -> int:
        """Steps of the rounds that aren't done."""
        store = _store(item.path)
        return sum(
            steps
            for index, steps in enumerate(self._steps[item.path])
            if self._fresh or not store.holds(index)
        )

    def pack_key(self, item: "Item") -> Hashable:
        """Each video is made alone."""
        return item.path

    def make(
        self, items: "Sequence[Item]", on_step: Callable[[int], None]
    ) -> "Iterator[tuple[Item, dict[str, Any]]]":
        """Make videos, each in the rounds that are missing."""
        bundle = self._bundle
        for item in items:
            planned = self._plan(self._lines[item.path], item.path)
            if planned.provenance != item.options:
                raise DataError(
                    f"{planned.given.file} has changed since the list was read",
                    "give the same command again",
                )
            for warning in (*planned.warnings, *planned.prompt_warnings(bundle)):
                if warning not in self._warned:
                    self._warned.add(warning)
                    output.warn(f"{item.path.name}: {warning}")
            store = _store(item.path)
            store.open(self._plan_of_rounds(planned), self._fresh)
            figures = planned.make(bundle, store, str(item.path), lambda *_: on_step(1))
            clips.tell_kept(figures["kept"])
            yield item, figures

    def tidy(self, item: "Item") -> None:
        """Delete the rounds of a video that is written."""
        store = _store(item.path)
        if store.plan() is not None:
            store.remove()

    def _plan(self, line: Mapping[str, Any], path: Path) -> ExtendPlan:
        wanted, sampling = self._wanted.overridden(line), shared.overridden(self._sampling, line)
        wanted.check()
        sampling = replace(sampling, frames=None)  # those of a line are the result's
        sampling.check()
        return plan_extension(self._model, sampling, wanted, str(path), self._tokenizer)

    def _plan_of_rounds(self, planned: ExtendPlan) -> dict[str, Any]:
        return {**planned.provenance, "tokenizer": self._identity}

    def _tokenizer(self) -> "tuple[VisualTokenizer, str]":
        if not self._is_loaded:
            return self._own_tokenizer, self._identity
        self._bundle.take_turn(self._bundle.video_tokenizer)
        return self._bundle.video_tokenizer, self._identity

    @cached_property
    def _own_tokenizer(self) -> "VisualTokenizer":
        from ursa_core.bundle.bundle import load_tokenizer

        return load_tokenizer(self._model.found.folder, self._model.device)[0]

    @cached_property
    def _identity(self) -> str:
        from ursa_core.bundle.bundle import tokenizer_identity

        return tokenizer_identity(self._model.found.folder)

    @cached_property
    def _bundle(self) -> "Bundle":
        vars(self).pop("_own_tokenizer", None)
        bundle = self._model.load()
        self._is_loaded = True
        return bundle


def make_batch(
    wanted: "Batch", sampling: shared.SamplingOptions, extending: "ExtendOptions", fresh: bool
) -> None:
    """Make the videos of a list, whose lines override the options."""
    from ursa_cli.sample_plan import place_model

    placed = replace(sampling, device=batch_run.local_device(sampling.device))
    task = ExtendTask(place_model(placed), placed, extending, fresh)
    batch.run_batch(task, wanted, sampling.seed, sampling.dry_run)


def _store(path: Path) -> "RoundStore":
    from ursa_core.clips.round_store import RoundStore

    return RoundStore(str(path))
