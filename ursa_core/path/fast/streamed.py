"""Draws along the metric path for any codebook, streamed over blocks of codes.

The first pass keeps one sum per block. These draw the block; its distances are then computed again,
and draw the code in it. So no tensor of (positions × codes) exists, at the cost of one product of
the codebook with the positions' vectors per pass.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ursa_core.path.distances import CodebookDistances
from ursa_core.path.draws import chunks, exp2_, pick
from ursa_core.path.fast.table import NodesOf, Pair

_BLOCK = 2048
_LOG2_E = 1.4426950408889634


class StreamedDraws:
    """Draws from p_t and from the jump rates by blocks; a tensor of one takes ``chunk_bytes``."""

    def __init__(self, distances: CodebookDistances, chunk_bytes: int) -> None:
        self._distances, self._chunk_bytes = distances, chunk_bytes
        self._blocks = list(chunks(distances.num_codes, 1, 4 * _BLOCK))  # four bytes a code

    def corrupt(self, x_1: Tensor, beta: Tensor, uniforms: Tensor) -> Tensor:
        """Codes (n,) drawn from exp(−beta·d(x, x_1)), for codes, betas and uniforms (n,)."""
        drawn = torch.empty_like(x_1)
        for rows in chunks(x_1.numel(), _BLOCK, self._chunk_bytes):
            codes, sharpness = x_1[rows], beta[rows]
            sums = [
                _boltzmann(self._distances.block(codes, block), sharpness).sum(-1)
                for block in self._blocks
            ]
            chosen, within = _pick_with_rest(torch.stack(sums, dim=1), uniforms[rows])
            for block, at in self._by_block(chosen):
                distance = self._distances.block(codes[at], block)
                entry = pick(_boltzmann(distance, sharpness[at]), within[at])
                drawn[rows.start + at] = block.start + entry
        return drawn

    def jump(
        self, x_t: Tensor, x_1: Tensor, pair: Pair, nodes_of: NodesOf, uniforms: Tensor
    ) -> Tensor:
        """Codes (n,) after one jump or none, as in ``TableDraws.jump``."""
        moved = x_t.clone()
        for rows in chunks(x_1.numel(), _BLOCK, self._chunk_bytes):
            codes = x_1[rows]
            nodes, measures = nodes_of(*(each[rows] for each in pair))
            reach = self._distances.pairs(x_t[rows], codes)
            flows, masses = [], torch.zeros_like(nodes)
            for block in self._blocks:
                distance = self._distances.block(codes, block)
                gap = _gap(distance, reach)
                flow = []
                for index, beta in enumerate(nodes):
                    weights = _boltzmann(distance, beta)
                    masses[index] += weights.sum(-1)
                    flow.append(weights.mul_(gap).sum(-1))
                flows.append(torch.stack(flow))
            by_block = torch.stack(flows, dim=-1)  # (N, n, blocks)
            share = (by_block.sum(-1) / masses * measures).T
            jumps = (uniforms[rows, 0] < -torch.expm1(-share.sum(1))).nonzero().squeeze(1)
            node = pick(share[jumps], uniforms[rows, 1][jumps])
            beta = nodes[node, jumps]
            chosen, within = _pick_with_rest(by_block[node, jumps], uniforms[rows, 2][jumps])
            for block, at in self._by_block(chosen):
                distance = self._distances.block(codes[jumps[at]], block)
                weights = _boltzmann(distance, beta[at]).mul_(_gap(distance, reach[jumps[at]]))
                moved[rows.start + jumps[at]] = block.start + pick(weights, within[at])
        return moved

    def _by_block(self, chosen: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Each block drawn, and the places (m,) of the positions that drew it."""
        for index in chosen.unique().tolist():
            yield self._blocks[index], (chosen == index).nonzero().squeeze(1)


def _pick_with_rest(weights: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (n,), one per row, in proportion to the weights; and uniform numbers to use next."""
    index = pick(weights, uniform)
    running = weights.cumsum(-1)
    weight = weights.gather(1, index[:, None]).squeeze(1)
    end = running.gather(1, index[:, None]).squeeze(1)
    return index, ((uniform * running[:, -1] - (end - weight)) / weight).clamp(0, 1)


def _boltzmann(distance: Tensor, beta: Tensor) -> Tensor:
    """exp(−beta·d): (n, block), in the type of beta."""
    return exp2_(distance.to(beta.dtype) * (beta * -_LOG2_E)[:, None])


def _gap(distance: Tensor, reach: Tensor) -> Tensor:
    """How much nearer to x_1 than x_t each code is, at least 0: (n, block)."""
    return (reach[:, None] - distance).clamp_(min=0)
