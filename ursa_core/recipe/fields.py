"""Every key of a recipe: its type, bounds, default and meaning.

``ursa_core.recipe.loading`` loads these from YAML and checks what two keys say together.
"""

import math
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ursa_core.bundle.settings import NumSteps, Positive, Scale

MAX_CODES = 1 << 20

Count = Annotated[int, Field(ge=1, le=10**9)]
Width = Annotated[int, Field(ge=1, le=1 << 16)]
Steps = Annotated[int, Field(ge=0, lt=1 << 63)]
Weight = Annotated[float, Field(ge=0, le=1e9)]
Above0 = Annotated[float, Field(gt=0, le=1e9)]
Share = Annotated[float, Field(ge=0, le=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(min_length=1)]
LayerMatrix = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def _ordered(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[0] > interval[1]:
        raise ValueError("should start before it ends")
    return interval


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


class Section(BaseModel):
    """A group of keys: no key beyond these, no silent conversion of types."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class OptimizerSettings(Section):
    """The optimizer and its schedule: linear warm-up, then a cosine."""

    kind: Literal["adamw", "muon"] = "adamw"
    """``muon``: hidden matrices get orthogonalized momentum, all else AdamW; the steps are the
    same size, a few percent slower, and a small model needs several times fewer of them."""
    momentum: Momentum = 0.95
    """Of the hidden matrices, with muon."""
    learning_rate: Above0
    """Peak of the schedule."""
    beta1: Momentum = 0.9
    """Decay of the mean of the gradients."""
    beta2: Momentum = 0.95
    """Decay of the mean of their squares."""
    weight_decay: Weight = 0.05
    """Decoupled decay of the weight matrices."""
    warmup_steps: Steps
    """Steps of linear warm-up, fewer than train.steps."""
    final_ratio: Share = 0.05
    """End of the cosine, as a share of the peak."""
    clip_norm: Above0 = 1.0
    """Largest norm of the gradient; longer ones are scaled down to it."""


class TrainSettings(Section):
    """Length, batch, device and bookkeeping of a run."""

    steps: Count
    """Optimizer steps of the whole run."""
    batch_size: Count
    """Clips in one pass."""
    accumulate: Count = 1
    """Passes that make one optimizer step; several ranks share them, so it is a multiple of their
    number."""
    distributed: Literal["ddp", "fsdp"] = "ddp"
    """How several ranks hold the weights: all of them each, or with FSDP2 a shard each."""
    ema_decay: Momentum = 0.999
    """Decay of the moving average of the weights, which is what a run ships."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the matrix products; auto takes bfloat16 where the device is faster with it."""
    compile: bool = False
    """Compile the network first: slower to start, faster steps."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; auto takes the fastest there is."""
    log_every: Count = 20
    """Steps between two lines of metrics."""
    checkpoint_every: Count = 250
    """Steps between two checkpoints."""
    keep_checkpoints: Count = 2
    """How many of the latest checkpoints stay."""
    keep_every: Count | None = None
    """Checkpoints after a multiple of so many steps stay too."""
    sample_every: Count = 500
    """Steps between two sample sheets."""
    validate_every: Count = 500
    """Steps between two losses on data.validation_shards, where a recipe has them."""
    validation_passes: Count = 8
    """Passes that make such a loss, always the same ones; each rank makes its share, rounded up."""
    track: list[Literal["tensorboard", "wandb"]] = []
    """Show the metrics in these too; both come with ``pip install 'ursa-video[track]'``."""
    on_fault: Literal["stop", "skip"] = "stop"
    """At a loss or gradient that isn't finite, or a spike: stop, or leave that step out and say so;
    ten in a row stop the run."""
    spike: Annotated[float, Field(gt=1)] | None = None
    """A loss more than so many times its recent mean is a spike; null knows none."""
    recompute: bool = False
    """Keep only what goes into each layer and compute the rest again for the gradient: far less
    memory, a third more time."""
    max_hours: Above0 | None = None
    """Stop, with a checkpoint, after so many hours."""


class TokenizerModel(Section):
    """Widths, strides and codes of a video tokenizer."""

    block_out_channels: Annotated[list[Width], Field(min_length=2)]
    """Width after the input, then of each stage."""
    layers_per_block: Width = 1
    """Residual blocks of an encoder stage; the decoder has one more."""
    latent_channels: Width = 16
    """Width between network and quantizer."""
    levels: Levels
    """FSQ levels, the first one fastest; their product is the number of codes."""
    spatial_stride: Literal[8, 16, 32]
    """Pixels per code in height and width."""
    temporal_stride: Literal[2, 4, 8]
    """Frames per latent frame after the first. With 2, Haar patches have two frames, not four."""
    causal: bool = True
    """Codes never depend on later frames."""


class SourceShares(Section):
    """How much of a mixture comes from each source; the sum need not be 1."""

    emoji: Weight = 0.0
    """Animated emoji over flat backgrounds."""
    film: Weight = 0.0
    """Windows of real film."""
    shapes: Weight = 0.0
    """Procedural clips."""


class TokenizerData(Section):
    """Clips to train a tokenizer on."""

    source: Literal["shapes", "mixture"]
    """``shapes``: procedural clips, drawn as they are needed; ``mixture``: those of ``shares``."""
    shares: SourceShares = SourceShares()
    """Of a mixture; at least one is above 0."""
    folder: Name | None = None
    """Emoji and film of a mixture, as ``recipes/emoji_data.py`` prepares them."""
    split: Name = "train"
    """Part of the source: train or heldout; the shapes alone have all, too."""
    frames: Count
    """Frames of a clip: 1 + a multiple of the temporal stride."""
    height: Width
    """Pixels, a multiple of the spatial stride."""
    width: Width
    """Pixels, a multiple of the spatial stride."""
    more_sizes: list[Size] = []
    """More pairs of height and width; steps take turns between height × width and these."""


class ReconstructionLoss(Section):
    """Weights of the parts of the reconstruction loss; at least one is above 0."""

    mse: Weight = 1.0
    """Squared error of the pixels."""
    l1: Weight = 0.0
    """Absolute error of the pixels."""
    log_mse: Weight = 0.0
    """Logarithm of each frame's squared error, in bels: what a mean of PSNRs measures."""
    ssim: Weight = 0.0
    """1 - SSIM of each frame (sigma 1) in gray: fine structure, also where contrast is low."""
    moving: Weight = 0.0
    """Extra weight, in the parts above, of pixels around which the clip changes from frame to
    frame: as much as this where the change is the clip's mean. 0 weighs all pixels the same."""
    saturation: Weight = 0.1
    """Squared excess of latents over 1.5, from where the FSQ bound stops their gradient."""


class GeneratorModel(Section):
    """Size of the transformer: a preset, and what differs from it."""

    preset: Literal["nano", "0.6B", "1.7B", "4B"]
    """Named size that the other keys start from."""
    hidden_size: Width | None = None
    """Width."""
    intermediate_size: Width | None = None
    """Width inside the MLP."""
    num_hidden_layers: Width | None = None
    """Layers."""
    num_attention_heads: Width | None = None
    """Query heads, a multiple of the key/value heads."""
    num_key_value_heads: Width | None = None
    """Key and value heads."""
    head_dim: Annotated[int, Field(ge=16, le=1 << 16, multiple_of=16)] | None = None
    """Width of a head."""
    max_prompt_length: Width
    """Tokens that every prompt is padded to; longer ones are cut."""


class GeneratorData(Section):
    """Token shards to train a generator on."""

    shards: OneOrMore
    """Folders of token shards, as ``ursa tokenize`` writes them; one may stand without brackets."""
    validation_shards: OneOrMore | None = None
    """Folders of token shards that are never trained on; the loss on them is logged."""
    frames: Count | None = None
    """Latent frames of a training clip; longer token clips give windows from anywhere in them, and
    shorter ones are left out. Null takes whole clips of any length."""
    batch_tokens: Count | None = None
    """Most tokens of a pass, prompts among them: clips of each grid make passes of their own, of as
    many as fit, up to train.batch_size. Null takes so many of any grid."""
    motion_prefix: bool = False
    """Put ``motion=…, `` before each prompt, as the published video models have it."""
    motion_scale: Above0 = 100.0
    """The score there is so many times the stored motion, which is in [0, 1]."""
    shuffle_mb: Count = 256
    """Codes among which clips are shuffled, in MB, all of a smaller data set; reading takes up to
    twice as much memory."""
    workers: Steps = 1
    """Threads that make the next passes' batches meanwhile; 0 makes each when it is needed."""


class LoraSettings(Section):
    """A LoRA adapter that is trained in place of the weights of ``init``; peft makes its layers."""

    rank: Width | None = None
    """Rank of the change of each matrix, 4 to 64 as a rule; null trains the weights themselves."""
    alpha: Above0 | None = None
    """Factor of the change, over the rank; null is the rank, a factor of 1."""
    targets: Annotated[list[LayerMatrix], Field(min_length=1)] = list(get_args(LayerMatrix))
    """Matrices of each layer that are changed."""


class PathSettings(Section):
    """Probability path from noise to data."""

    kind: Literal["metric", "linear", "mixture", "masked"] = "metric"
    """Metric is the paper's own, linear the same with a tabulated sharpness under which the mean
    distance falls exactly linearly; mixture and masked are what the paper compares with."""
    alpha: Above0 | None = None
    """Exponent of the metric path's sharpness c·(t/(1-t))^alpha; 1 unless given."""
    c: Above0 | None = None
    """Factor of the metric path's sharpness; 5 unless given."""

    @model_validator(mode="before")
    @classmethod
    def _metric_defaults(cls, data: Any) -> Any:
        """Fill in alpha and c where they mean something."""
        if isinstance(data, dict) and data.get("kind", "metric") == "metric":
            given = {key: value for key, value in data.items() if value is not None}
            return {"alpha": 1.0, "c": 5.0, **given}
        return data


class ObjectiveSettings(Section):
    """What the generator's training draws at random."""

    caption_dropout: Share = 0.1
    """Share of clips whose caption is left empty, for guidance."""
    shift: Above0 = 1.0
    """Time shift of the training times; above 1 means more noise."""
    async_probability: Share = 0.5
    """Share of clips whose frames have times of their own."""
    image_to_video_probability: Share = 0.0
    """Share of clips whose first frame is given: shown as data while the rest is noisy."""
    extension_probability: Share = 0.0
    """Share of clips whose first frames are given, from one to all but one."""
    interpolation_probability: Share = 0.0
    """Share of clips whose first and last frames are given."""
    image_probability: Share = 0.0
    """Share of clips of which only the first frame is shown."""


class SamplingSettings(Section):
    """Defaults of ``ursa sample``, stored in the bundle."""

    steps: NumSteps = 25
    """Network calls along the path."""
    guidance: Scale = 7.0
    """Strength of classifier-free guidance; 1 is off."""
    guidance_interval: Interval = (0.0, 0.9)
    """Times between which guidance acts; 0 is noise and 1 is data."""
    shift: Positive = 1.0
    """Time shift of the steps."""
    temperature: Positive = 1.0
    """Of the draws of x_1; below 1 favours likelier codes."""
    fps: Positive = 8.0
    """Frames a second of the file written."""


class SampleSheet(Section):
    """What the sample sheets of a run show."""

    prompts: list[str] = []
    """One clip each; no prompts, no sheets."""


class TokenizerRecipe(Section):
    """How to train a video tokenizer."""

    kind: Literal["tokenizer"]
    """Always ``tokenizer``."""
    name: Name
    """Of the model."""
    seed: Steps = 0
    """Of every random stream of the run."""
    init: Name | None = None
    """Bundle whose weights to start from."""
    freeze_encoder: bool = False
    """Train the decoder of ``init`` alone: its codes, and generators of them, stay valid."""
    init_codes: Share = 0.0
    """Of the clips, decoded from the codes of ``init``, so that generators of them stay of use."""
    model: TokenizerModel
    data: TokenizerData
    loss: ReconstructionLoss = ReconstructionLoss()
    optimizer: OptimizerSettings
    train: TrainSettings


class GeneratorRecipe(Section):
    """How to train a generator on the codes of a tokenizer."""

    kind: Literal["generator"]
    """Always ``generator``."""
    name: Name
    """Of the model."""
    seed: Steps = 0
    """Of every random stream of the run."""
    init: Name | None = None
    """Bundle, or Qwen3 language model, whose weights to start from: a folder or Hugging Face id."""
    tokenizer: Name
    """Bundle with the video tokenizer: its folder, a shipped name or a Hugging Face id."""
    text_tokenizer: Name = "words"
    """``words`` for a vocabulary of the captions' own words, or a folder with a tokenizer."""
    model: GeneratorModel
    data: GeneratorData
    lora: LoraSettings = LoraSettings()
    path: PathSettings = PathSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    optimizer: OptimizerSettings
    train: TrainSettings
    sampling: SamplingSettings = SamplingSettings()
    samples: SampleSheet = SampleSheet()


Recipe = TokenizerRecipe | GeneratorRecipe
