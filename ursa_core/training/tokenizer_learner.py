"""The learner of a video tokenizer: reconstruction of clips."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from ursa_core.bundle.bundle import load_tokenizer, resolve_model, save_tokenizer
from ursa_core.bundle.settings import BundleSettings, load_settings, save_settings
from ursa_core.errors import RecipeError
from ursa_core.media.frames import Frames, contact_sheet
from ursa_core.media.ssim import ssim_map
from ursa_core.parts import num_cores
from ursa_core.recipe.fields import TokenizerRecipe
from ursa_core.tokenizers.video_fsq import VideoTokenizer, VideoTokenizerConfig
from ursa_core.training.file_clips import FileClips, Split
from ursa_core.training.learner import Learner
from ursa_core.training.metrics import Metrics, weighed
from ursa_core.training.prefetch import Prefetcher
from ursa_core.worlds.shapes import FPS
from ursa_core.worlds.sprites import KINDS, ClipMixture

Drawn = tuple[NDArray[np.uint8], str]  # frames of a clip, and the kind of its source
Size = tuple[int, int]  # height and width in pixels


class TokenizerLearner(Learner):
    """Reconstruction of clips.

    The tokenizer to start from may differ in levels, temporal stride and residual blocks, with
    ``freeze_encoder`` in nothing.
    """

    model: VideoTokenizer
    recipe: TokenizerRecipe

    def __init__(self, recipe: TokenizerRecipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        patch = min(VideoTokenizerConfig().patch_size, recipe.model.temporal_stride)
        model: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in recipe.model}
        self.config = VideoTokenizerConfig(temporal_patch_size=patch, **model)
        data = recipe.data
        self.files: FileClips | None = None
        if data.source == "files":
            fps = load_settings(resolve_model(recipe.init)).fps if recipe.init else FPS
            self.files = FileClips(data, recipe.model.temporal_stride, fps)
            self.num_clips, self.data_identity = self.files.num_clips, self.files.identity
        shares = data.shares.model_dump() if data.source == "mixture" else {"shapes": 1.0}
        self.mixture = ClipMixture(shares, Path(data.folder or "."))
        self.mixture.require(data.split, data.frames)
        self.mixture.require("heldout", FULL_FRAMES)
        self.sizes: list[Size] = [(data.height, data.width), *data.more_sizes]
        self._clips_a_step = recipe.train.batch_size * recipe.train.accumulate
        # On the CPU the network needs every core.
        workers, size = int(device.type != "cpu"), recipe.train.batch_size
        self._pool = ThreadPoolExecutor(num_cores() if workers else 1)
        drawn = (data.split, data.frames)
        self.prefetcher = Prefetcher(lambda k: self.clips(k * size, size, *drawn), workers)
        torch.manual_seed(recipe.seed)
        self.model = VideoTokenizer(self.config).to(device)
        self._frozen: dict[str, Tensor] = {}
        if recipe.init:
            self._begin_from(recipe.init)
        if recipe.train.compile:
            self.model.compile()
        self.objective = self.model

    def _begin_from(self, init: str) -> None:
        recipe = self.recipe
        start, _, identity = load_tokenizer(init, self.device)
        if not isinstance(start, VideoTokenizer):
            hint = "start from a video tokenizer, or leave init out"
            raise RecipeError(f"{init} that training starts from has an image tokenizer", hint)
        theirs, ours = asdict(start.config), asdict(self.config)
        if not recipe.freeze_encoder:
            free = ("levels", "temporal_stride", "temporal_patch_size")
            theirs |= {key: ours[key] for key in free}
            theirs["layers_per_block"] = max(t["layers_per_block"] for t in (theirs, ours))
        different = [f"{k}: {json.dumps(theirs[k])}" for k in ours if ours[k] != theirs[k]]
        if different:
            fault = f"the tokenizer of {init} that training starts from is of another kind"
            raise RecipeError(fault, f"give the recipe's model its {', '.join(different)}")
        weights = start.state_dict()
        copy_weights_(self.model, weights)
        if recipe.freeze_encoder:
            self.base, kept = identity, ("encoder.", "quant_conv.")
            self._frozen = {n: w for n, w in weights.items() if n.startswith(kept)}
            self.model.encoder.requires_grad_(False)
            self.model.quant_conv.requires_grad_(False)

    def clips(
        self, first: int, count: int, split: str, frames: int, size: Size | None = None
    ) -> tuple[Frames, list[str]]:
        """Clips from ``first`` on, uint8 (count, frames, H, W, 3), and their kinds of source.

        Without a size, steps take turns between the recipe's sizes.
        """
        seed, full = self.recipe.seed, max(frames, FULL_FRAMES)
        if self.files is not None:
            turn = first // self._clips_a_step
            return self.files.drawn(seed, turn, first, count), ["files"] * count

        def draw(index: int) -> Drawn:
            own = size or self.sizes[index // self._clips_a_step % len(self.sizes)]
            return self.mixture.clip(seed, index, split, frames, *own, full)

        pixels, kinds = zip(*self._pool.map(draw, range(first, first + count)), strict=True)
        return np.stack(pixels), list(kinds)

    def video(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Clips (B, F, H, W, 3) on the device, (B, 3, F, H, W) in [-1, 1]."""
        stacked = torch.from_numpy(pixels).to(self.device)
        return stacked.permute(0, 4, 1, 2, 3).float() / 127.5 - 1

    def loss(self, index: int, objective: nn.Module) -> tuple[Tensor, Metrics]:
        """Weighted pixel losses of micro-batch ``index``, and metrics such as the PSNR in dB."""
        pixels, kinds = self.prefetcher.take(index)
        return self._loss(self.video(pixels), kinds, objective)

    def validation_loss(self, index: int, objective: nn.Module) -> Metrics | None:
        """Metrics of batch ``index`` of the held-out files; None without them."""
        if self.files is None or not self.files.has_held_out:
            return None
        video = self.video(self.files.batch("heldout", index, self.recipe.train.batch_size))
        loss, metrics = self._loss(video, ["files"] * len(video), objective)
        return {"loss": weighed(loss), **metrics}

    def _loss(
        self, video: Tensor, kinds: list[str], objective: nn.Module
    ) -> tuple[Tensor, Metrics]:
        data, weights = self.recipe.data, self.recipe.loss
        back, latents = objective(video)
        back = back.float()
        error = back - video
        share = moving_weights(video, weights.moving)
        weighed_by_frame = (share * error.square()).mean((1, 3, 4))
        loss = weights.mse * weighed_by_frame.mean()
        if weights.l1:
            loss = loss + weights.l1 * (share * error.abs()).mean()
        if weights.log_mse:
            loss = loss + weights.log_mse * torch.log10(weighed_by_frame + 1e-5).mean()
        if weights.ssim:
            gray, wanted = (clip.mean(1, keepdim=True).float() for clip in (back, video))
            loss = loss + weights.ssim * (share * (1 - ssim_map(gray, wanted))).mean()
        if weights.saturation:
            loss = loss + weights.saturation * F.relu(latents.abs() - 1.5).square().mean()
        with torch.no_grad():
            by_frame = error.square().mean((1, 3, 4))
            codes = self.model.quantizer.quantize(latents)
            used = codes.unique().numel() / self.model.quantizer.num_codes
            psnr = 10 * torch.log10(4 / by_frame).mean(1)
            metrics = {"psnr": weighed(psnr), "codes_used": weighed(loss.new_tensor(used))}
            for kind in KINDS if data.source == "mixture" else ():
                of_kind = psnr.new_tensor([float(each == kind) for each in kinds])
                metrics[f"psnr_{kind}"] = weighed(psnr, of_kind)
        return loss, metrics

    def cost(self, is_bfloat16: bool) -> tuple[int, float]:
        """Bytes of activations of a pass of the largest clips, and its operations."""
        size = (self.recipe.data.frames, *max(self.sizes, key=math.prod))
        dtype = torch.bfloat16 if is_bfloat16 else torch.float32
        with torch.device("meta"):
            model = VideoTokenizer(self.config).to("meta", dtype)
            video = torch.zeros(self.recipe.train.batch_size, 3, *size, dtype=dtype)
        for name, parameter in self.model.named_parameters():
            model.get_parameter(name).requires_grad_(parameter.requires_grad)
        kept: dict[int, Tensor] = {}
        hooks = saved_tensors_hooks(lambda x: kept.setdefault(id(x), x), lambda x: x)
        with FlopCounterMode(display=False) as counter, hooks:
            model(video)[0].sum().backward()
        storages = {s._cdata: s.nbytes() for s in map(Tensor.untyped_storage, kept.values())}
        return sum(storages.values()), counter.get_total_flops()

    def write_bundle(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """Write the tokenizer to ``folder/vae``, and the size of its clips."""
        save_tokenizer(folder, self.config, {**self._frozen, **weights}, self.base)
        data, files = self.recipe.data, self.files
        frames, fps = (data.frames, files.cut.fps) if files else (FULL_FRAMES, FPS)
        settings = BundleSettings(
            frames=frames, height=data.height, width=data.width, fps=fps, motion_prefix=False,
            licence=self.recipe.licence or "not stated",
        )  # fmt: skip
        save_settings(folder, settings)

    def sample_grid(self) -> Frames:
        """Held-out clips next to their reconstructions."""
        if self.files is not None:
            split: Split = "heldout" if self.files.has_held_out else "train"
            video = self.video(self.files.batch(split, 0, 6))
        else:
            video = self.video(self.clips(0, 6, "heldout", FULL_FRAMES, self.sizes[0])[0])
        back = self.model.decode(self.model.encode(video))
        pairs = torch.stack([video, back.clamp(-1, 1)], 1).flatten(0, 1)
        pixels = ((pairs + 1) * 127.5).round().byte().permute(0, 2, 3, 4, 1).cpu().numpy()
        return contact_sheet(list(pixels), columns=2)


def copy_weights_(model: VideoTokenizer, weights: dict[str, Tensor]) -> None:
    """Copy another tokenizer's weights; where shapes differ, the corner that both have.

    Shapes differ next to the quantizer, by the codes' dimensions, and next to the pixels, by the
    patches' frames. Residual blocks that the other lacks do nothing at first.
    """
    with torch.no_grad():
        for name, parameter in model.state_dict().items():
            source = weights.get(name, parameter)
            sizes = map(min, parameter.shape, source.shape)
            corner = tuple(slice(0, size) for size in sizes)
            parameter[corner] = source[corner]


def moving_weights(video: Tensor, extra: float) -> Tensor:
    """Weights (B, 1, F, H, W) of pixels of clips (B, 3, F, H, W), with mean 1 over each clip.

    Where the change around a pixel is the clip's mean, its weight is 1 + ``extra``.
    """
    change = video.diff(dim=2).abs().mean(1)
    to, onwards = (F.pad(change, (0, 0, 0, 0, *ends)) for ends in ((1, 0), (0, 1)))
    around = F.avg_pool2d(torch.maximum(to, onwards), 5, stride=1, padding=2)
    weight = 1 + extra * around / around.mean((1, 2, 3), keepdim=True).clamp(min=1e-6)
    return (weight / weight.mean((1, 2, 3), keepdim=True)).unsqueeze(1)


FULL_FRAMES = 17
