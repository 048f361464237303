"""The interface of probability paths from noise (t = 0) to data (t = 1)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from ursa_core.errors import UsageError
from ursa_core.path.draws import Randomness, uniform_codes, uniforms

Times = float | Tensor
"""A time, or times that broadcast to the codes: each frame may have its own."""
Span = tuple[Tensor, Tensor]
"""First and last time of a step, of the shape of the codes."""
_SUBSTEPS = 16


class ProbPath(ABC):
    """A path p_t(x | x_1) over codes, and the Markov chain that follows it given x_1."""

    num_codes: int  # K, number of codes that the network predicts
    num_states: int  # K, or K + 1 if the path has a mask state (id K)
    solvers: tuple[str, ...] = ("integrated", "euler")  # step rules, the default first
    dtype: torch.dtype = torch.float32

    @property
    def table_bytes(self) -> int:
        """Bytes of the table that draws are made by, 0 without one."""
        return 0

    def initial(
        self, shape: Sequence[int], generator: Randomness, device: torch.device | str = "cpu"
    ) -> Tensor:
        """x_0: int64 noise of a shape; each code is equally likely."""
        return uniform_codes(shape, self.num_codes, generator, device)

    @abstractmethod
    def corrupt(self, x_1: Tensor, t: Times, generator: Randomness) -> Tensor:
        """x_t drawn from p_t(x | x_1): int64, the shape of ``x_1``."""

    @abstractmethod
    def conditional_probs(self, x_1: Tensor, t: Times) -> Tensor:
        """p_t(x | x_1) of every state: (..., num_states), rows sum to 1."""

    @abstractmethod
    def jump_rates(self, x_t: Tensor, x_1: Tensor, t: Times) -> Tensor:
        """Rates per unit of t from x_t to x_1: (..., num_states), 0 at x_t; UsageError at 1."""

    def step(
        self,
        x_t: Tensor,
        x_1: Tensor,
        t: Times,
        t_next: Times,
        generator: Randomness,
        solver: str = "integrated",
        correct: float = 0.0,
    ) -> Tensor:
        """Codes at ``t_next``, given x_t and a drawn x_1: int64; equal times keep x_t.

        First at most one jump per position: ``integrated`` jumps with probability 1 − exp(−∫Λ), Λ
        the total rate from t to t_next; ``euler`` with 1 − exp(−(t_next − t)·Λ(t)). Then each
        position whose time advances is, with probability ``correct``, drawn again from
        p_{t_next}(x | x_1), x_1 as ``finish`` has it. A jump only ever leads towards the x_1 of its
        step, so that what an early x_1 got wrong can stay; a code drawn again has forgotten it. The
        redraw also has the exact distribution of ``t_next`` given x_1, which one jump per step only
        comes near to.

        Source of the redraw: Ψ-samplers (arXiv 2602.21185), here for any path.

        Raises:
            UsageError: The solver is unknown, ``correct`` isn't in [0, 1], or times are outside
                [0, 1] or in the wrong order.
        """
        if solver not in ("integrated", "euler"):
            raise UsageError(f"{solver!r} isn't a step of a path", "use one of: integrated, euler")
        start, end = self._times(t, x_t), self._times(t_next, x_t)
        if not bool((start <= end).all()):
            raise UsageError("a step goes back in time", "let t_next be at least t")
        if not 0 <= correct <= 1:
            raise UsageError(f"codes can't be corrected at {correct:g}", "give 0 (off) to 1")
        moved = self._jump(x_t, x_1, (start, end), generator, solver)
        if correct == 0:
            return moved
        again = uniforms(x_t.shape, generator, x_t.device) < correct
        redrawn = self.corrupt(self.finish(x_t, x_1), end, generator)
        return torch.where(again & (start < end), redrawn, moved)

    @abstractmethod
    def _jump(
        self, x_t: Tensor, x_1: Tensor, span: Span, generator: Randomness, solver: str
    ) -> Tensor:
        """Codes after at most one jump each."""

    def bridge(self, x_0: Tensor, x_1: Tensor, t: Times, generator: Randomness) -> Tensor:
        """x_t of the chain from x_0 towards x_1, both held: int64, the shape of ``x_1``.

        Over an x_0 of ``initial`` this is ``corrupt``, but for the error of its steps; what it
        keeps besides is which x_0 led to which x_1. The total variation from ``corrupt`` is at most
        0.005, and 0.03 to 0.25 if one step led to t, for 64 codes and c = 4. Source: rectified
        couplings (ReDi, arXiv 2507.15897), here by the path's own chain. Times outside [0, 1] are a
        UsageError.
        """
        ends, x_t = self._times(t, x_1), x_0
        for step in range(_SUBSTEPS):
            start, end = ends * (step / _SUBSTEPS), ends * ((step + 1) / _SUBSTEPS)
            x_t = self.step(x_t, x_1, start, end, generator)
        return x_t

    def finish(self, x_t: Tensor, x_1: Tensor) -> Tensor:
        """Codes at t = 1, given x_t and a draw x_1: that draw wherever ``loss_mask`` is true."""
        mask = self.loss_mask(x_t)
        return x_1 if mask is None else torch.where(mask, x_1, x_t)

    def loss_mask(self, x_t: Tensor) -> Tensor | None:
        """Which codes of x_t may differ from x_1: bool, the shape of ``x_t``; None for all."""
        return None

    def to(self, device: torch.device | str) -> "ProbPath":
        """The same path with its tensors on a device."""
        return self

    def _times(self, t: Times, x: Tensor) -> Tensor:
        """Times in [0, 1] as a float tensor of the shape of the codes; others: UsageError."""
        times = torch.as_tensor(t, dtype=self.dtype, device=x.device)
        if not bool(((times >= 0) & (times <= 1)).all()):
            low, high = float(times.min()), float(times.max())
            raise UsageError(f"times from {low:g} to {high:g} aren't in [0, 1]", "0 is noise")
        return times.broadcast_to(x.shape)
