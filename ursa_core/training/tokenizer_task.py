"""Trains a video tokenizer to give back what it was shown."""

from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ursa_core.bundle import load_tokenizer, save_tokenizer
from ursa_core.bundle_settings import BundleSettings, save_settings
from ursa_core.data.shapes import FPS, training_clip
from ursa_core.errors import RecipeError
from ursa_core.media.frames import Frames, contact_sheet
from ursa_core.recipe import TokenizerRecipe
from ursa_core.tokenizers.video_fsq import VideoTokenizer, VideoTokenizerConfig
from ursa_core.training.figures import Figures, weighed


class TokenizerTask:
    """Reconstruction of procedural clips.

    Args:
        recipe: model, data and loss.
        device: to train on.

    Raises:
        RecipeError: the tokenizer to start from has another configuration.
    """

    def __init__(self, recipe: TokenizerRecipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.config = VideoTokenizerConfig(
            block_out_channels=tuple(recipe.model.block_out_channels),
            layers_per_block=recipe.model.layers_per_block,
            latent_channels=recipe.model.latent_channels,
            levels=tuple(recipe.model.levels),
            spatial_stride=recipe.model.spatial_stride,
            temporal_stride=recipe.model.temporal_stride,
            causal=recipe.model.causal,
        )
        torch.manual_seed(recipe.seed)
        self.model = VideoTokenizer(self.config).to(device)
        if recipe.init:
            start, _, _ = load_tokenizer(recipe.init, device)
            if start.config != self.config:
                raise RecipeError(
                    f"the tokenizer of {recipe.init} that training starts from is of another kind",
                    f"give the recipe's model its settings: {start.config}",
                )
            self.model.load_state_dict(start.state_dict())
        if recipe.train.compile:
            self.model.compile()
        self.objective = self.model
        self.blocks: list[nn.Module] = []

    def clips(self, first: int, count: int, split: str, frames: int) -> Tensor:
        """Clips ``first`` … of a split, (count, 3, frames, H, W) in [-1, 1]."""
        data = self.recipe.data
        batch = [
            training_clip(
                self.recipe.seed,
                first + i,
                split,
                frames,
                data.height,
                data.width,
                max(frames, FULL_FRAMES),
            )[0]
            for i in range(count)
        ]
        stacked = torch.stack([torch.from_numpy(clip) for clip in batch])
        return stacked.to(self.device).permute(0, 4, 1, 2, 3).float() / 127.5 - 1

    def loss(self, index: int, objective: nn.Module) -> tuple[Tensor, Figures]:
        """Weighted pixel losses of micro-batch ``index``, and the PSNR of its clips in dB."""
        size = self.recipe.train.batch_size
        video = self.clips(index * size, size, self.recipe.data.split, self.recipe.data.frames)
        back, latents = objective(video)
        error = back.float() - video
        by_clip = error.square().flatten(1).mean(1)
        weights = self.recipe.loss
        loss = weights.mse * by_clip.mean()
        if weights.l1:
            loss = loss + weights.l1 * error.abs().mean()
        if weights.log_mse:
            loss = loss + weights.log_mse * torch.log10(by_clip + 1e-5).mean()
        if weights.saturation:
            loss = loss + weights.saturation * F.relu(latents.abs() - 1.5).square().mean()
        with torch.no_grad():
            codes = self.model.quantizer.quantize(latents)
            used = codes.unique().numel() / self.model.quantizer.num_codes
            figures = {
                "psnr": weighed(10 * torch.log10(4 / by_clip)),
                "codes_used": weighed(loss.new_tensor(used)),
            }
        return loss, figures

    def validation_loss(self, index: int, objective: nn.Module) -> None:
        """None: clips are drawn as they are needed, and hardly any twice."""

    def write_bundle(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """Write the tokenizer as ``folder/vae``, and the clips that it is meant for."""
        save_tokenizer(folder, self.config, weights)
        data = self.recipe.data
        settings = BundleSettings(
            frames=FULL_FRAMES, height=data.height, width=data.width, fps=FPS, motion_prefix=False
        )
        save_settings(folder, settings)

    def draw_sheet(self) -> Frames:
        """Held-out clips above their reconstructions."""
        video = self.clips(0, 6, "heldout", FULL_FRAMES)
        back = self.model.decode(self.model.encode(video))
        pairs = torch.stack([video, back.clamp(-1, 1)], 1).flatten(0, 1)
        pixels = ((pairs + 1) * 127.5).round().byte().permute(0, 2, 3, 4, 1).cpu().numpy()
        return contact_sheet(list(pixels), columns=2)


FULL_FRAMES = 17
