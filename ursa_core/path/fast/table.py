"""Draws along the metric path by a distance table: exact, with far fewer than K operations each.

Positions that share the class of x_1 and the sharpness share the sums over codes. A running sum
over the levels of distance then gives a position its total rate by two lookups, and a draw by
bisection.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ursa_core.path.distances import CodebookDistances
from ursa_core.path.draws import chunks, pick
from ursa_core.path.fast.distance_table import DistanceTable

Pair = tuple[Tensor, Tensor]
NodesOf = Callable[[Tensor, Tensor], Pair]
"""Two numbers per position, each (n,), to N betas (N, n) and measures (N, n) of the rates."""


class TableDraws:
    """Draws from p_t and from the jump rates by a table; sums held at once take ``chunk_bytes``."""

    def __init__(
        self, distances: CodebookDistances, table: DistanceTable, chunk_bytes: int
    ) -> None:
        self._distances, self._table, self._chunk_bytes = distances, table, chunk_bytes

    def corrupt(self, x_1: Tensor, beta: Tensor, uniforms: Tensor) -> Tensor:
        """Codes (n,) drawn from exp(−beta·d(x, x_1)), for codes, betas and uniforms (n,)."""
        table = self._table
        drawn = torch.empty_like(x_1)
        for at, row, classes, (beta_row,) in self._groups(x_1, beta):
            distance = table.distance[classes]  # 0 at x_1, so that no row's sum underflows
            weights = torch.exp(distance * -beta_row[:, None].to(distance.dtype))
            running = weights.mul_(table.count[classes]).cumsum(-1)
            target = _below(uniforms[at] * running[row, -1], running[row, -1])
            level = bisect(_entries(running, row), table.num_levels, target)
            weight = weights[row, level]
            within = (target - (running[row, level] - weight)) / weight
            drawn[at] = table.member(x_1[at], level, within)
        return drawn

    def jump(
        self, x_t: Tensor, x_1: Tensor, pair: Pair, nodes_of: NodesOf, uniforms: Tensor
    ) -> Tensor:
        """Codes (n,) after one jump or none from x_t towards x_1, both (n,).

        A jump belongs to one node: drawing the node first, in proportion to its share
        of the total, and then the destination at that node is a draw from the sum of both.

        ``pair`` are the arguments (n,) of the quadrature rule ``nodes_of``: the betas at both ends
        of an integrated step, or beta and the measure of an Euler step. The uniform numbers (n, 3)
        say whether to jump, at which node, and where to.
        """
        table = self._table
        moved = x_t.clone()
        for at, row, classes, row_pair in self._groups(x_1, *pair):
            nodes, measures = nodes_of(*row_pair)
            distance, count = table.distance[classes], table.count[classes]
            reach = self._distances.pairs(x_t[at], x_1[at]).to(distance.dtype)
            entries = _entries(distance, row)
            nearer = bisect(entries, table.num_levels, reach, or_equal=True)
            last = (nearer - 1).clamp(min=0)
            weights = torch.exp(distance * -nodes.to(distance.dtype)[..., None]).mul_(count)
            mass = weights.cumsum(-1).flatten(0, 1)
            moment = weights.mul_(distance).cumsum(-1).flatten(0, 1)
            # The sums of node i over the pair in row r are in row i·U + r.
            each = row + len(classes) * torch.arange(len(nodes), device=row.device)[:, None]
            flow = torch.where(nearer > 0, _flow(mass, moment, each, reach)(last), 0.0)
            share = (flow.clamp_(min=0) / mass[each, -1] * measures[:, row]).T
            jumps = (uniforms[at, 0] < -torch.expm1(-share.sum(1))).nonzero().squeeze(1)
            node = pick(share[jumps], uniforms[at[jumps], 1])
            where = at[jumps]
            flow_to = _flow(mass, moment, each[node, jumps], reach[jumps])
            total = flow_to(last[jumps])
            target = _below(uniforms[where, 2] * total, total)
            level = bisect(flow_to, last[jumps] + 1, target)
            before = torch.where(level > 0, flow_to((level - 1).clamp(min=0)), 0.0)
            within = (target - before) / (flow_to(level) - before)
            moved[where] = table.member(x_1[where], level, within)
        return moved

    def _groups(
        self, x_1: Tensor, *keys: Tensor
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, list[Tensor]]]:
        """Positions (m,) by chunks of the distinct pairs of a class and the keys' values.

        With them come the row (m,) of each among the chunk's pairs, and the pairs' classes (U,) and
        keys (U,).
        """
        group = self._table.class_of[x_1]
        for key in keys:
            values, place = key.unique(return_inverse=True)
            group = group * len(values) + place
        groups, row = group.unique(return_inverse=True)
        order = row.argsort(stable=True)
        bounds = torch.nn.functional.pad(row.bincount(minlength=len(groups)).cumsum(0), (1, 0))
        first = order[bounds[:-1]]
        for rows in chunks(len(groups), 2 * self._table.num_levels, self._chunk_bytes):
            at = order[int(bounds[rows.start]) : int(bounds[rows.stop])]
            head = first[rows]
            classes = self._table.class_of[x_1[head]]
            yield at, row[at] - rows.start, classes, [key[head] for key in keys]


def bisect(
    values: Callable[[Tensor], Tensor],
    size: int | Tensor,
    target: Tensor,
    *,
    or_equal: bool = False,
) -> Tensor:
    """First index (n,) whose value exceeds the target (n,), ``size`` if none does.

    ``values`` gives the rising values (n,) at indices (n,), of which each row has ``size``. With
    ``or_equal`` a value that equals the target counts, too.
    """
    low = torch.zeros_like(target, dtype=torch.int64)
    high = low + size
    last = high - 1
    for _ in range(int(high.max()).bit_length() if high.numel() else 0):
        middle = (low + high) // 2
        value = values(torch.minimum(middle, last))
        beyond = (value >= target) if or_equal else (value > target)
        beyond |= low == high
        high = torch.where(beyond, middle, high)
        low = torch.where(beyond, low, middle + 1)
    return high


def _entries(table: Tensor, row: Tensor) -> Callable[[Tensor], Tensor]:
    """Entries of a table (U, J) in the rows (n,), by index (n,)."""
    return lambda index: table[row, index]


def _flow(mass: Tensor, moment: Tensor, row: Tensor, reach: Tensor) -> Callable[[Tensor], Tensor]:
    """Sum of p(x)·(reach − d(x)) over the levels up to an index, from rows of running sums."""
    return lambda index: reach * mass[row, index] - moment[row, index]


def _below(target: Tensor, total: Tensor) -> Tensor:
    """Targets kept below their totals in spite of rounding."""
    return torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))
