"""Layers that wait on the CPU and come to the device while others compute: `--offload-blocks`."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ursa_core.models.transformer import Backbone


class StreamedBackbone(Backbone):
    """A backbone with ``num`` of its layers, 1 or more, on the device that it is moved to.

    Up to two take turns: while one computes, the next is copied to the other's place; the rest of
    the ``num`` stay there. Embeddings remain on the CPU, where the few rows needed are picked.
    Numbers are those of the ``whole`` backbone, to the bit, whose weights on the CPU are taken
    over; ``pinned`` keeps those that wait in page-locked memory, which CUDA copies meanwhile.
    """

    def __init__(self, whole: Backbone, num: int, *, pinned: bool) -> None:
        nn.Module.__init__(self)
        layers = [layer.requires_grad_(False) for layer in whole.layers]
        staying = len(layers) if num >= len(layers) else max(num - 2, 0)
        self.layers, self.norm = nn.ModuleList(layers[:staying]), whole.norm
        waiting = layers[staying:]
        self.places = nn.ModuleList(copy.deepcopy(layer) for layer in waiting[: min(num, 2)])
        # In tuples, which moving the module to a device leaves where they are.
        self._embeddings, self._waiting = (whole.embed_tokens,), tuple(waiting)
        for weight in (weight for layer in waiting if pinned for weight in layer.parameters()):
            weight.data = weight.data.pin_memory()
        self._copies: torch.cuda.Stream | None = None

    def forward(self, ids: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # noqa: D102
        (embed_tokens,) = self._embeddings
        x = embed_tokens(ids.cpu()).to(cos.device)
        for layer in self._in_order(cos.device):
            x = layer(x, cos, sin)
        return self.norm(x)

    def _in_order(self, device: torch.device) -> Iterator[nn.Module]:
        """All layers, each once it is on the device."""
        if device.type == "cuda" and self._copies is None:
            self._copies = torch.cuda.Stream(device)
        ahead = max(len(self.places) - 1, 0)
        ready = [self._fetch(index) for index in range(ahead)]
        yield from self.layers
        for index in range(len(self._waiting)):
            if index + ahead < len(self._waiting):
                ready.append(self._fetch(index + ahead))
            if (event := ready[index]) is not None:
                torch.cuda.current_stream(device).wait_event(event)
            yield self.places[index % len(self.places)]

    @torch.no_grad()
    def _fetch(self, index: int) -> "torch.cuda.Event | None":
        """Begin to copy a waiting layer to its place; the event that it is there, if it isn't yet.

        The place is free once all that was asked of the device before is done.
        """
        place = self.places[index % len(self.places)].parameters()
        pairs = list(zip(place, self._waiting[index].parameters(), strict=True))
        if self._copies is None:
            for target, weight in pairs:
                target.copy_(weight)
            return None
        self._copies.wait_stream(torch.cuda.current_stream(self._copies.device))
        with torch.cuda.stream(self._copies):
            for target, weight in pairs:
                target.copy_(weight, non_blocking=True)
            return self._copies.record_event()
