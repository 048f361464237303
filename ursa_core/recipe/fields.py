"""Every key of a recipe: its type, bounds, default, meaning, and what keys ask of each other.

They are in one file, since docs/recipes.md and the JSON schema are made from it and its comments.
"""

import math
import os
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from ursa_core.bundle.settings import NumSteps, Positive, Scale
from ursa_core.configs import MAX_CODES
from ursa_core.errors import ShapeError
from ursa_core.grids import ALPHA_RANGE, C_RANGE, PixelShape, Strides

Count = Annotated[int, Field(ge=1, le=10**9)]
Width = Annotated[int, Field(ge=1, le=1 << 16)]
Steps = Annotated[int, Field(ge=0, lt=1 << 63)]
Weight = Annotated[float, Field(ge=0, le=1e9)]
Above0 = Annotated[float, Field(gt=0, le=1e9)]
Share = Annotated[float, Field(ge=0, le=1)]
Mixed = Annotated[float, Field(ge=0.001, le=1)]
Alpha = Annotated[float, Field(ge=ALPHA_RANGE[0], le=ALPHA_RANGE[1])]
Factor = Annotated[float, Field(ge=C_RANGE[0], le=C_RANGE[1])]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(min_length=1)]
LayerMatrix = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def _ordered(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[0] > interval[1]:
        raise ValueError("should start before it ends")
    return interval


def _folder(name: str) -> str:
    if not name.strip(" .") or not name.isprintable() or set(name) & set("/\\"):
        raise ValueError("should be a name for a folder")
    return name


def _codebook(levels: list[int]) -> list[int]:
    if math.prod(levels) > MAX_CODES:
        raise ValueError(f"should make at most {MAX_CODES} codes, these make {math.prod(levels)}")
    return levels


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


OneOrMore = Annotated[list[Name], Field(min_length=1), BeforeValidator(_listed)]
# YAML has lists only, so pairs are read leniently; their two numbers stay strict.
Interval = Annotated[tuple[Share, Share], Field(strict=False), AfterValidator(_ordered)]
Size = Annotated[tuple[Width, Width], Field(strict=False)]
Levels = Annotated[
    list[Annotated[int, Field(ge=2, le=64)]], Field(min_length=1), AfterValidator(_codebook)
]
DISAGREE = "keys_disagree"  # type of the error whose message has a fault between keys per line


class Section(BaseModel):
    """A group of keys: no other keys, no silent conversion of types."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    def _faults(self) -> Iterator[str]:
        """Faults between keys that are each sound: lines that start with a dotted key."""
        yield from ()

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if lines := list(self._faults()):
            raise PydanticCustomError(DISAGREE, "{lines}", {"lines": "\n".join(lines)})
        return self


class OptimizerSettings(Section):
    """The optimizer and its schedule, after a linear warm-up."""

    # `muon` orthogonalizes the momentum of hidden matrices, and a small model needs several times
    # fewer of its steps, which are a few percent slower.
    kind: Literal["adamw", "muon"] = "adamw"
    momentum: Momentum = 0.95  # momentum of the hidden matrices, with muon
    learning_rate: Annotated[float, Field(gt=0, le=1)]  # peak of the schedule
    beta1: Momentum = 0.9  # decay of the running mean of the gradients
    beta2: Momentum = 0.95  # decay of the running mean of their squares
    weight_decay: Weight = 0.05  # decoupled decay of the weight matrices
    decay_all: bool = False  # decay gains of norms and biases, too
    warmup_steps: Steps  # steps of linear warm-up, fewer than train.steps
    # Fall of the learning rate; `warmup-stable-decay` stays at the peak, and falls at the end.
    schedule: Literal["cosine", "linear", "constant", "warmup-stable-decay"] = "cosine"
    # Share of the steps in which `warmup-stable-decay` falls.
    decay_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    final_ratio: Share = 0.05  # end of the schedule, as a share of the peak
    clip_norm: Above0 | None = 1.0  # largest norm of the gradient; null sets no limit


class TrainSettings(Section):
    """Length, batch, device and bookkeeping of a run."""

    steps: Count  # optimizer steps of the whole run
    batch_size: Count  # clips per pass
    accumulate: Count = 1  # passes per optimizer step, a multiple of the number of ranks
    # How ranks hold the weights: `ddp` all of them each, `fsdp` (FSDP2) a shard each.
    distributed: Literal["ddp", "fsdp"] = "ddp"
    ema_decay: Momentum = 0.999  # decay of the moving average of the weights, which the model has
    # Number format of matrix products; auto takes bfloat16 where the device is faster with it.
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False  # compile the network first: a slower start, faster steps
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto takes the fastest that there is
    log_every: Count = 20  # steps between two lines of metrics
    checkpoint_every: Count = 250  # steps between two checkpoints
    keep_checkpoints: Count = 2  # number of the latest checkpoints that are kept
    keep_every: Count | None = None  # checkpoints after a multiple of this many steps are kept too
    sample_every: Count = 500  # steps between two sample grids
    validate_every: Count = 500  # steps between two losses on data that are held out
    validation_passes: Count = 8  # passes per validation loss, always the same ones
    keep_best: bool = False  # the model that is kept is that of the lowest validation loss
    track: list[Literal["tensorboard", "wandb"]] = []  # viewers of the metrics
    # At a loss or gradient that isn't finite, or a spike: stop, or skip that step with a warning.
    # Ten skipped steps in a row stop the run.
    on_fault: Literal["stop", "skip"] = "stop"
    # A loss of more than this many times its recent mean is a spike; null switches this off.
    spike: Annotated[float, Field(gt=1)] | None = None
    recompute: bool = False  # activation checkpointing: far less memory, a third more time
    max_hours: Above0 | None = None  # hours after which the run stops with a checkpoint


class TokenizerModel(Section):
    """Widths, strides and codes of a video tokenizer."""

    # Channels after the input, then of each stage.
    block_out_channels: Annotated[list[Width], Field(min_length=2)]
    layers_per_block: Width = 1  # residual blocks per encoder stage; decoder stages have one more
    latent_channels: Width = 16  # channels between network and quantizer
    levels: Levels  # FSQ levels, the first one varying fastest; their product counts the codes
    spatial_stride: Literal[8, 16, 32]  # pixels per code in height and width
    # Frames per latent frame after the first. With 2, Haar patches have two frames, not four.
    temporal_stride: Literal[2, 4, 8]
    causal: bool = True  # codes never depend on later frames

    def _faults(self) -> Iterator[str]:
        # Patches of 4 pixels take two halvings; the last stage never halves.
        least = (self.spatial_stride // 4).bit_length() + 1
        if len(self.block_out_channels) < least:
            yield (
                f"model.block_out_channels: {len(self.block_out_channels)} widths are too few"
                f" for model.spatial_stride {self.spatial_stride}, give at least {least}"
            )


class SourceShares(Section):
    """Share of a mixture that comes from each source; the sum needn't be 1."""

    emoji: Weight = 0.0  # animated emoji over flat backgrounds
    film: Weight = 0.0  # windows of real film
    shapes: Weight = 0.0  # procedural clips


class CutSettings(Section):
    """How clips are cut out of files, and which are left out: options of `ursa tokenize`."""

    fps: Above0 | None = None  # frames sampled per second; null is the rate of `init`, or 8
    source_fps: Above0 | None = None  # frames per second of the files, whatever they say
    clips: Literal["head", "chunk", "slide", "uniform", "full"] = "head"  # clips of each file
    stride: Count | None = None  # sampled frames between the starts of clips, with slide
    clips_per_file: Count | None = None  # number of clips, with uniform
    crops: Annotated[int, Field(ge=0, le=1000)] = 0  # random parts of each clip, added to the whole
    min_size: Count | None = None  # pixels of the shorter side that a file has at least
    min_seconds: Weight | None = None  # seconds that a film has at least
    max_seconds: Weight | None = None  # seconds that a film has at most
    min_motion: Share | None = None  # mean change from frame to frame that a clip has at least
    max_motion: Share | None = None  # mean change from frame to frame that a clip has at most


class TokenizerData(Section):
    """Clips to train a tokenizer on."""

    # `shapes`: procedural clips, drawn as needed; `mixture`: the sources in `shares`; `files`:
    # clips of one's own, cut once and kept in a temporary file.
    source: Literal["shapes", "mixture", "files"]
    files: OneOrMore | None = None  # films, images, folders or lists of them
    cut: CutSettings = CutSettings()  # how clips are cut out of files
    held_out: Share = 0.0  # share of the files that is kept for the validation loss
    shares: SourceShares = SourceShares()  # shares of a mixture; at least one is above 0
    folder: Name | None = None  # emoji and film of a mixture, as of `recipes/emoji_data.py`
    split: Name = "train"  # part of the source: train or heldout; shapes alone also have all
    frames: Count  # pixel frames of a clip: 1 + a multiple of the temporal stride
    height: Width  # height in pixels, a multiple of the spatial stride
    width: Width  # width in pixels, a multiple of the spatial stride
    more_sizes: list[Size] = []  # further pairs of height and width, between which steps take turns

    def _faults(self) -> Iterator[str]:
        any_share = any(self.shares.model_dump().values())
        if self.source == "files" and not self.files:
            yield "data.files: is required for data.source files"
        for source, key, is_given in (
            ("files", "files", self.files),
            ("files", "cut", self.cut != CutSettings()),
            ("files", "held_out", self.held_out),
            ("mixture", "shares", any_share),
            ("mixture", "folder", self.folder is not None),
        ):
            if is_given and self.source != source:
                yield f"data.{key}: has no meaning for data.source {self.source}, leave it out"
        if self.source != "mixture":
            return
        if not any_share:
            yield "data.shares: a mixture needs at least one share above 0"
        elif self.folder is None and (self.shares.emoji or self.shares.film):
            yield "data.folder: is required for emoji and film"


class ReconstructionLoss(Section):
    """Weights of the terms of the reconstruction loss; at least one is above 0."""

    mse: Weight = 1.0  # weight of the squared error of the pixels
    l1: Weight = 0.0  # weight of the absolute error of the pixels
    log_mse: Weight = 0.0  # weight of log10 of each frame's squared error, which PSNR measures
    ssim: Weight = 0.0  # weight of 1 - SSIM of each frame (sigma 1) in gray
    # Extra weight, in the terms above, of pixels around which the clip changes between frames,
    # where that change is the clip's mean; 0 weighs all pixels equally.
    moving: Weight = 0.0
    saturation: Weight = 0.1  # weight of the squared excess of latents over 1.5, FSQ's range

    def _faults(self) -> Iterator[str]:
        if not (self.mse or self.l1 or self.log_mse or self.ssim):
            yield "loss: at least one weight should be above 0"


class GeneratorModel(Section):
    """Size of the transformer: a preset, and the values that differ from it."""

    preset: Literal["nano", "0.6B", "1.7B", "4B"]  # named size that the other keys change
    hidden_size: Width | None = None  # width of the hidden states
    intermediate_size: Width | None = None  # width of the MLP
    num_hidden_layers: Width | None = None  # number of layers
    num_attention_heads: Width | None = None  # query heads, a multiple of the key/value heads
    num_key_value_heads: Width | None = None  # number of key and value heads
    # Width of a head.
    head_dim: Annotated[int, Field(ge=16, le=1 << 16, multiple_of=16)] | None = None
    max_prompt_length: Width  # tokens that every prompt is padded to; longer prompts are cut

    def _faults(self) -> Iterator[str]:
        heads, key_value_heads = self.num_attention_heads, self.num_key_value_heads
        if heads and key_value_heads and heads % key_value_heads:
            of_what = f"model.num_key_value_heads, {key_value_heads}"
            yield f"model.num_attention_heads: {heads} should be a multiple of {of_what}"


class DataSet(Section):
    """One of several data sets that are mixed; a list of them may stand for all of `data`."""

    shards: OneOrMore  # folders of token shards of `ursa tokenize`; one needs no brackets
    share: Mixed  # share of the clips of a run; those of all sets and of `prior` sum to 1


class GeneratorData(Section):
    """Token shards to train a generator on."""

    shards: OneOrMore | None = None  # folders of token shards of `ursa tokenize`, mixed by size
    # The same with a share for each, instead of `shards`: a list of `{shards: …, share: …}`.
    sets: Annotated[list[DataSet], Field(min_length=1)] | None = None
    validation_shards: OneOrMore | None = None  # the same for the validation loss; never trained on
    # Latent frames of a training clip. Longer token clips give windows from anywhere in them, and
    # shorter ones are left out. Null takes whole clips of any length.
    latent_frames: Count | None = None
    # Most tokens per pass, prompts included. Each grid has passes of its own, with as many clips as
    # fit, up to train.batch_size. Null takes train.batch_size clips of any grid.
    batch_tokens: Count | None = None
    motion_prefix: bool = False  # put `motion=…, ` before prompts, as the published models have it
    motion_share: Share = 1.0  # share of the prompts before which motion_prefix puts it
    motion_scale: Above0 = 100.0  # factor from the stored motion, in [0, 1], to that of the prefix
    # Share of prompts that are a clip's shortest caption, or the first sentence of its only one;
    # the others are its longest. Null draws from all of its captions.
    short_captions: Share | None = None
    # MB of the codes among which clips are shuffled; reading takes up to twice as much memory.
    shuffle_mb: Count = 256
    workers: Steps = 1  # threads that prefetch batches; 0 makes each batch when it is needed

    @model_validator(mode="before")
    @classmethod
    def _listed_sets(cls, data: Any) -> Any:
        return {"sets": data} if isinstance(data, list) else data

    def _faults(self) -> Iterator[str]:
        if self.motion_share < 1 and not self.motion_prefix:
            yield "data.motion_share: has no meaning without data.motion_prefix, leave it out"
        if (self.shards is None) == (self.sets is None):
            both = "data.sets names the shards, leave one of them out"
            yield f"data.shards: {'is required' if self.sets is None else both}"
        named = self.folders
        for folder in dict.fromkeys(name for name in named if named.count(name) > 1):
            yield f"{'data.sets' if self.sets else 'data.shards'}: {folder} is given twice"

    @property
    def folders(self) -> list[str]:
        """All folders of shards to train on, as `os.path.normpath` writes them."""
        sets = [each.shards for each in self.sets or ()]
        return [os.path.normpath(name) for names in (self.shards or (), *sets) for name in names]


class PriorSettings(Section):
    """Clips that `init` makes itself, once, so that it keeps what it knew without its old data."""

    shards: Name  # folder of token shards for these clips; what it lacks of them is made first
    share: Mixed  # share of the clips of a run; the rest is that of `data`
    # Prompts of the clips, in turn; or one name of a list of them, a .txt with a prompt per line, a
    # .jsonl or .csv; or `shapes:train` and `emoji:train`, captions of the shipped models' training.
    prompts: OneOrMore
    num: Count = 600  # number of clips; a folder that holds more already is used whole
    steps: NumSteps | None = None  # sampling steps; null takes those of `init`, as for the next two
    guidance: Scale | None = None  # strength of classifier-free guidance
    correct: Share | None = None  # probability that a step draws a code again from the path


class LoraSettings(Section):
    """A LoRA adapter that is trained instead of the weights of ``init``."""

    rank: Width | None = None  # usually 4 to 64; null trains the weights themselves
    alpha: Above0 | None = None  # scale of the change, divided by the rank; null takes the rank
    # Matrices of each layer that the adapter changes.
    targets: Annotated[list[LayerMatrix], Field(min_length=1)] = list(get_args(LayerMatrix))


class PathSettings(Section):
    """Probability path from noise to data."""

    # `metric` is the paper's. `linear` is the same path with a tabulated sharpness, so that the
    # mean distance falls exactly linearly. The paper compares with the other two.
    kind: Literal["metric", "linear", "mixture", "masked"] = "metric"
    alpha: Alpha | None = None  # exponent of the sharpness c·(t/(1-t))^alpha; 1 unless given
    c: Factor | None = None  # factor of the metric path's sharpness; 5 unless given

    def _faults(self) -> Iterator[str]:
        for key, value in (("alpha", self.alpha), ("c", self.c)):
            if self.kind != "metric" and value is not None:
                no_use = f"{value:g} has no meaning for path.kind {self.kind}"
                yield f"path.{key}: {no_use}, leave it out"

    @model_validator(mode="before")
    @classmethod
    def _metric_defaults(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("kind", "metric") == "metric":
            given = {key: value for key, value in data.items() if value is not None}
            return {"alpha": 1.0, "c": 5.0, **given}
        return data


class ObjectiveSettings(Section):
    """Random draws of a generator's training."""

    caption_dropout: Share = 0.1  # share of clips whose caption is dropped, for guidance
    # How noise and clips are joined: `independent`, any noise to any clip; `pairs`, each prior clip
    # to the noise that it was sampled from, so that few steps lose less (docs/sampling.md).
    coupling: Literal["independent", "pairs"] = "independent"
    shift: Above0 = 1.0  # time shift of the training times; above 1 means more noise
    async_probability: Share = 0.5  # share of clips whose frames each have a time of their own
    image_to_video_probability: Share = 0.0  # share of clips whose first frame is given
    extension_probability: Share = 0.0  # share of clips whose first one to all but one are given
    interpolation_probability: Share = 0.0  # share of clips whose first and last are given
    image_probability: Share = 0.0  # share of passes on the first frame of each clip, as an image

    def _faults(self) -> Iterator[str]:
        tasks = ("async", "image_to_video", "extension", "interpolation")
        if (total := sum(getattr(self, f"{name}_probability") for name in tasks)) > 1:
            keys = ", ".join(f"objective.{name}_probability" for name in tasks)
            yield f"{keys}: {total:g} together, should be 1 at most"


class SamplingSettings(Section):
    """Sampling defaults, stored in the model that the run makes: fields of ``BundleSettings``."""

    negative: str = ""  # prompt that guidance leads away from
    steps: NumSteps = 25  # sampling steps
    guidance: Scale = 7.0  # strength of classifier-free guidance; 1 is off
    guidance_interval: Interval = (0.0, 0.9)  # times of guidance; 0 is noise and 1 is data
    shift: Positive = 1.0  # time shift of the steps
    correct: Share = 0.0  # probability that a step draws a code again from the path; 0 is off
    temperature: Positive = 1.0  # temperature of the draws of x_1; below 1 favours likelier codes
    fps: Positive = 8.0  # frames per second of written files


class SampleGrid(Section):
    """What the sample grids of a run show."""

    prompts: list[str] = []  # prompts of one clip each; without prompts a run draws no grids


def _warmup_faults(optimizer: OptimizerSettings, train: TrainSettings) -> Iterator[str]:
    if (steps := optimizer.warmup_steps) >= train.steps:
        yield f"optimizer.warmup_steps: {steps} should be fewer than train.steps, {train.steps}"


class _Training(Section):
    kind: str
    name: Annotated[Name, AfterValidator(_folder)]  # name of the model
    seed: Steps = 0  # seed of every random stream of the run
    # Model, or for a generator Qwen3 language model, to start from: a folder or Hugging Face id.
    init: Name | None = None
    licence: Name | None = None  # licence of the model, as apache-2.0; null is stated as none


class TokenizerRecipe(_Training):
    """How to train a video tokenizer."""

    kind: Literal["tokenizer"]
    # Train the decoder of `init` alone, so that its codes and their generators stay valid.
    freeze_encoder: bool = False
    model: TokenizerModel
    data: TokenizerData
    loss: ReconstructionLoss = ReconstructionLoss()
    optimizer: OptimizerSettings
    train: TrainSettings

    def _faults(self) -> Iterator[str]:
        yield from _warmup_faults(self.optimizer, self.train)
        data, stride = self.data, self.model.spatial_stride
        for key, shape in (
            ("frames", PixelShape(data.frames, stride, stride)),
            ("height", PixelShape(1, data.height, stride)),
            ("width", PixelShape(1, stride, data.width)),
            *(("more_sizes", PixelShape(1, *size)) for size in data.more_sizes),
        ):
            try:
                Strides(self.model.temporal_stride, stride).grid(shape)
            except ShapeError as error:
                yield f"data.{key}: {error.message}, {error.hint}"
        if self.train.keep_best and not data.held_out:
            yield "train.keep_best: asks for a validation loss, so give data.held_out"
        if self.freeze_encoder and self.init is None:
            yield "freeze_encoder: keeps the codes of a tokenizer, so init has to name it"


class GeneratorRecipe(_Training):
    """How to train a generator on the codes of a tokenizer."""

    kind: Literal["generator"]
    tokenizer: Name  # model with the video tokenizer: folder, shipped name or Hugging Face id
    # `words` for a vocabulary of the captions' own words, or a folder with a tokenizer.
    text_tokenizer: Name = "words"
    # Words of captions that `init` lacks: `extend` adds an embedding for each, which begins as that
    # of unknown words and is trained; `keep` leaves them unknown. A vocabulary that knows every
    # text, as Qwen's, lacks none, and `extend` is refused.
    vocabulary: Literal["extend", "keep"] = "keep"
    model: GeneratorModel
    data: GeneratorData
    prior: PriorSettings | None = None  # clips of `init` itself that are mixed with the data
    lora: LoraSettings = LoraSettings()
    path: PathSettings = PathSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    optimizer: OptimizerSettings
    train: TrainSettings
    sampling: SamplingSettings = SamplingSettings()
    samples: SampleGrid = SampleGrid()

    def _faults(self) -> Iterator[str]:
        yield from _warmup_faults(self.optimizer, self.train)
        if self.train.keep_best and self.data.validation_shards is None:
            yield "train.keep_best: asks for a validation loss, so give data.validation_shards"
        if self.lora.rank is not None and self.init is None:
            asks = f"{self.lora.rank} asks for an adapter"
            yield f"lora.rank: {asks}, so init has to name the model that it is for"
        needs_init = {"vocabulary": self.vocabulary == "extend", "prior": self.prior is not None}
        for key, is_given in needs_init.items():
            if is_given and self.init is None:
                yield f"{key}: is for what init knows already, so init has to name a model"
        if self.prior and os.path.normpath(self.prior.shards) in self.data.folders:
            yield f"prior.shards: data has {self.prior.shards} already, give another folder"
        if self.path.kind == "masked" and self.sampling.correct:
            yield "sampling.correct: maskgit, the solver of path.kind masked, can't, give 0"
        if self.objective.coupling == "pairs":
            if self.prior is None:
                yield "objective.coupling: pairs are prior clips and their noise, give prior"
            if self.path.kind == "masked":
                yield "objective.coupling: masks are the only noise of path.kind masked"
        total = sum(share for _, share in self.mixture)
        if abs(total - 1) > 1e-6:
            yield f"data.sets, prior.share: the shares sum to {total:g}, should be 1"
        elif self.mixture[0][1] < 1e-6:
            yield "prior.share: a share of 0 is left for data"

    @property
    def mixture(self) -> list[tuple[tuple[str, ...], float]]:
        """Folders of shards of each data set, the prior's last, and their shares of the clips."""
        prior = [((self.prior.shards,), self.prior.share)] if self.prior else []
        rest = 1 - sum(share for _, share in prior)
        sets = [(tuple(each.shards), each.share) for each in self.data.sets or ()]
        return [*(sets or [(tuple(self.data.shards or ()), rest)]), *prior]


class RewardTerm(Section):
    """A score of clips by their prompts (docs/rewards.md)."""

    # `shapes`: how well clips show captions of the procedural world, 0 to 1; `frames`: one of the
    # figures of `ursa eval videos`; `command`: a process of yours.
    kind: Literal["shapes", "frames", "command"]
    # Factor of the score in the sum; below 0, lower scores are better.
    weight: Annotated[float, Field(ge=-1e9, le=1e9)] = 1.0
    figure: Literal["flicker", "motion", "colour drift"] | None = None  # which one of `frames`
    command: OneOrMore | None = None  # program of `command` and its arguments
    timeout: Above0 = 300.0  # seconds that `command` may take for its next answer

    def _faults(self) -> Iterator[str]:
        for kind, key in (("frames", "figure"), ("command", "command")):
            if (self.kind == kind) != (getattr(self, key) is not None):
                yield f"{key}: is for `kind: {kind}`, and that needs it"


class RolloutSettings(Section):
    """How clips are sampled for a reward; null takes what the model has."""

    group_size: Annotated[int, Field(ge=2, le=1 << 16)] = 8  # clips of one prompt, compared
    updates: Count = 1  # optimizer steps from the same clips
    steps: NumSteps = 10  # sampling steps
    guidance: Scale = 1.0  # strength of classifier-free guidance; 1 is off
    temperature: Positive = 1.0  # temperature of the draws of x_1
    correct: Share | None = None  # probability that a step draws a code again from the path


class RewardObjective(Section):
    """The loss of reward tuning (arXiv:2604.18518)."""

    states: Count = 3  # neighbouring times of the rollout at which each clip is trained
    latest: Share = 0.5  # these times are at most this one; 0 is noise
    clip: Above0 = 1e-4  # how far the ratio of probabilities may leave 1, with updates above 1
    kl: Weight = 0.05  # weight of the divergence from `init`
    normalise: bool = True  # divide advantages by the deviation of their group


class WatchSettings(Section):
    """Clips of held-out prompts, sampled with fixed seeds by `init` and by the averaged weights."""

    prompts: OneOrMore  # as `prompts`, and none of those
    score: RewardTerm | None = None  # score that isn't among the rewards
    min_diversity: Share = 0.6  # share of the diversity of `init`, below which the run stops


class RewardRecipe(_Training):
    """How to tune a generator to rewards."""

    kind: Literal["reward"]
    # Texts; or one name: of a list (.txt, .jsonl, .csv), or `shapes:train` or `shapes:heldout`.
    prompts: OneOrMore
    rewards: Annotated[list[RewardTerm], Field(min_length=1)]  # their weighted sum is the reward
    # What a clip without a score does: stop the run, or be left out.
    on_failure: Literal["stop", "skip"] = "stop"
    lora: LoraSettings = LoraSettings()
    rollout: RolloutSettings = RolloutSettings()
    objective: RewardObjective = RewardObjective()
    watch: WatchSettings | None = None  # validation on held-out prompts; null is none
    optimizer: OptimizerSettings
    train: TrainSettings
    sampling: SamplingSettings | None = None  # defaults of the tuned model; null: as its rollouts
    samples: SampleGrid = SampleGrid()

    def _faults(self) -> Iterator[str]:
        yield from _warmup_faults(self.optimizer, self.train)
        if self.init is None:
            yield "init: is required, the model that is tuned"
        if (size := self.train.batch_size) % self.rollout.group_size:
            yield f"train.batch_size: {size} should be a multiple of rollout.group_size"
        kept = {"kind", "figure", "command"}
        rewards = [each.model_dump(include=kept) for each in self.rewards]
        watched = self.watch and self.watch.score
        if watched and watched.model_dump(include=kept) in rewards:
            yield "watch.score: is among the rewards, give another"
        if all(each.weight == 0 for each in self.rewards):
            yield "rewards: all weigh 0, so there is nothing to learn"
        if self.sampling is not None and self.lora.rank is not None:
            yield "sampling: an adapter samples as the model that it is on, leave it out"
        if self.train.keep_best and not self.watch:
            yield "train.keep_best: asks for a validation, so give watch"


Recipe = TokenizerRecipe | GeneratorRecipe | RewardRecipe
