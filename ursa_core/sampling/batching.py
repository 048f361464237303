"""Several clips in one pass of the network, wherever that changes none of them."""

from collections.abc import Hashable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ursa_core.bundle.bundle import Bundle
from ursa_core.bundle.options import SamplingOptions
from ursa_core.grids import LatentGrid
from ursa_core.sampling.generate import Request, Sampler


def pack_key(options: SamplingOptions) -> Hashable:
    """Equal for clips that may share a pass: all options but negative and motion."""
    return replace(options, negative="", motion=0.0)


class Packer:
    """Puts clips together, each of which comes out as it would alone.

    Draws and steps are made item by item; the network alone sees the pack. Its products have more
    rows then, and a library may sum each row in another order, which in rare cases tips a draw.
    That order follows from the shapes and not from the values, so it is tried out: the first pack
    of a size is run both ways, and where one bit of the hidden states differs, packs of this size
    are run one by one.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._is_exact: dict[tuple[LatentGrid, int, bool], bool] = {}

    @property
    def is_exact(self) -> bool:
        """Whether no pack had to be taken apart because its products differ."""
        return all(self._is_exact.values())

    def passes(self, requests: Sequence[Request]) -> list[Sampler]:
        """Passes that make clips of one `pack_key`, in their order: one of all, or one for each."""
        if len(requests) > 1:
            together = Sampler(self._bundle, requests)
            # Guidance is off for all of a pass or for none.
            if len(set(together.is_unguided)) == 1 and self._exact(together):
                return [together]
        return [Sampler(self._bundle, [each]) for each in requests]

    @torch.inference_mode()
    def _exact(self, whole: Sampler) -> bool:
        """Whether the network's rows are the same to the bit in this pack and alone."""
        active = whole.guidance.active(whole.times[:-1])
        for guided in active.unique().tolist():
            key = (whole.grid, len(whole.prompt_ids), guided)
            if key not in self._is_exact:
                self._is_exact[key] = self._try(whole, guided)
            if not self._is_exact[key]:
                return False
        return True

    def _try(self, whole: Sampler, guided: bool) -> bool:
        ids = [whole.prompt_ids, whole.negative_ids] if guided else [whole.prompt_ids]
        generator = torch.Generator().manual_seed(0)
        shape = (len(whole.prompt_ids), whole.grid.num_codes)
        codes = torch.randint(self._bundle.path.num_codes, shape, generator=generator)
        x_t = codes.to(ids[0].device)

        def hidden(rows: slice) -> Tensor:
            prompts = torch.cat([half[rows] for half in ids])
            return whole.network(prompts, torch.cat([x_t[rows]] * len(ids)))

        together = hidden(slice(None)).unflatten(0, (len(ids), -1))
        return all(
            torch.equal(together[:, item], hidden(slice(item, item + 1)))
            for item in range(shape[0])
        )
