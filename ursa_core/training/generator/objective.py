"""One training step of the paper (Sec. 3.2): draw times, corrupt, predict, take the loss.

    t ~ U[0, 1], shifted by Eq. 5     one per clip, or one per frame (asynchronous, Sec. 3.2.2)
    x_t ~ p_t(x | x_1)                along the probability path (Eq. 3)
    loss = −log p(x_1 | x_t, text)    (Eq. 6)

Shapes: B clips, F latent frames, L = F·H·W codes, S text length. Time 0 is noise, 1 is data.
"""

import torch
from torch import Tensor, nn

from ursa_core.grids import LatentGrid
from ursa_core.models.transformer import Transformer
from ursa_core.path.base import ProbPath
from ursa_core.recipe.fields import ObjectiveSettings
from ursa_core.sampling.time_grid import shift_time
from ursa_core.training.generator.chunked_loss import chunked_cross_entropy
from ursa_core.training.metrics import Metrics, weighed

LAST_TIME = 0.999  # of conditioning frames: nearly data, where a path's sharpness is finite
TIME_BINS = 4


def draw_times(
    num_frames: int,
    starts_late: Tensor,
    shares: ObjectiveSettings,
    generator: torch.Generator,
    task_generator: torch.Generator,
) -> Tensor:
    """Times of the frames of B clips: float32 (B, F), at most ``LAST_TIME`` before the shift.

    Each clip is trained for one task. Text to video has one time for all frames; asynchronous has
    one time per frame; the others have one time for all frames but the conditioning ones, which are
    data. Clips with ``starts_late``, bool (B,), are cut from behind the start of a longer one: some
    frames of theirs are always given, since a clip's own first latent frame stands for one frame
    and all later ones for several.
    """
    size = len(starts_late)
    per_frame = torch.rand(size, num_frames, generator=generator)
    per_clip = torch.rand(size, 1, generator=generator).expand_as(per_frame)
    task = torch.rand(size, generator=generator)
    counts = 1 + (torch.rand(size, generator=task_generator) * (num_frames - 1)).long()

    frame = torch.arange(num_frames)
    is_first = frame == 0
    prefixes = frame < counts[:, None]
    is_async = task < shares.async_probability
    is_cond = torch.zeros(size, num_frames, dtype=torch.bool)
    if num_frames > 1:
        low = shares.async_probability
        for share, frames in (
            (shares.image_to_video_probability, is_first),
            (shares.extension_probability, prefixes),
            (shares.interpolation_probability, is_first | (frame == num_frames - 1)),
        ):
            is_cond |= ((task >= low) & (task < low + share))[:, None] & frames
            low += share
        is_cond = torch.where(starts_late[:, None], prefixes, is_cond)
        is_async &= ~starts_late
    times = torch.where(is_async[:, None], per_frame, per_clip).masked_fill(is_cond, 1.0)
    return shift_time(LAST_TIME * times, shares.shift)


class DenoisingObjective(nn.Module):
    """The loss of a transformer along a path, as a module that can be spread over devices."""

    def __init__(self, network: Transformer, path: ProbPath) -> None:
        super().__init__()
        self.network = network
        self.path = path

    def forward(
        self,
        prompt_ids: Tensor,
        x_1: Tensor,
        times: Tensor,
        grid: LatentGrid,
        generator: torch.Generator,
        x_0: Tensor | None = None,
    ) -> tuple[Tensor, Metrics]:
        """Mean cross-entropy in nats (a scalar), and that of each quarter of time.

        ``prompt_ids`` are int64 (B, S), ``x_1`` the codes to predict, int64 (B, L), and ``times``
        float (B, L). ``x_0``, int64 (B, L), is the noise that x_t comes from; None for any, drawn
        on the CPU.
        """
        if x_0 is None:
            x_t = self.path.corrupt(x_1, times, generator)
        else:
            x_t = self.path.bridge(x_0, x_1, times, generator)
        hidden, head = self.network(prompt_ids, x_t, grid), self.network.lm_head.weight
        loss_mask = self.path.loss_mask(x_t)
        weights = None if loss_mask is None else loss_mask.flatten().float()
        loss, each = chunked_cross_entropy(hidden.flatten(0, 1), head, x_1.flatten(), weights)
        return loss, by_time_bin(each.view_as(x_1), times, loss_mask)


def by_time_bin(each: Tensor, times: Tensor, loss_mask: Tensor | None = None) -> Metrics:
    """Mean losses of the quarters of time, the first of which starts at noise.

    ``each``, the loss of each code, and ``times`` are float (B, L); ``loss_mask``, bool (B, L), has
    the losses that count, or None for all.
    """
    weights = torch.ones_like(each) if loss_mask is None else loss_mask.float()
    bins = (times * TIME_BINS).long().clamp_max(TIME_BINS - 1)
    return {
        f"loss_time_{number + 1}_of_{TIME_BINS}": weighed(each, weights * (bins == number))
        for number in range(TIME_BINS)
    }
