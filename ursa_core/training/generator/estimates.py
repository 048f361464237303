"""Memory and time that training a transformer takes, told before any weight is made."""

from dataclasses import asdict, dataclass

from ursa_core.bundle.memory import PROCESS_BYTES
from ursa_core.grids import LatentGrid
from ursa_core.models.transformer import TransformerConfig
from ursa_core.recipe.fields import LoraSettings, OptimizerSettings, TrainSettings
from ursa_core.training.generator.batches import TokenBatches
from ursa_core.training.generator.chunked_loss import CHUNK_BYTES

UTILISATION = 0.4
"""Share of the rate of a large matrix product that a training step reaches, about."""
NO_LORA = LoraSettings()
_CHUNKS = 3  # logits, their logarithms and what the product makes of them


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of a rank's device, part by part.

    Args:
        process: of Python and its libraries.
        weights: in float32, and the copy that is multiplied in bfloat16.
        gradients: in float32.
        average: of the moving average.
        optimizer: of its state.
        activations: kept for the gradient, and those of the layer at work.
        loss: logits of a chunk, and the head's gradient.
    """

    process: int
    weights: int
    gradients: int
    average: int
    optimizer: int
    activations: int
    loss: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(asdict(self).values())

    def to_json(self) -> dict[str, int]:
        """The parts and their total."""
        return {**asdict(self), "total": self.total}


def num_parameters(config: TransformerConfig) -> int:
    """Numbers in the weights of a transformer."""
    ends = (config.vocab_size + config.lm_head_size + 1) * config.hidden_size
    return ends + config.num_hidden_layers * _layer_parameters(config)


def training_memory(
    config: TransformerConfig,
    grid: LatentGrid,
    prompt_length: int,
    train: TrainSettings,
    optimizer: OptimizerSettings,
    ranks: int = 1,
    is_bfloat16: bool = False,
    device: str = "cpu",
    lora: LoraSettings = NO_LORA,
) -> TrainingMemory:
    """Estimate of the memory that a training step takes on each of some ranks.

    With P parameters, T = batch · (S + 1 + L) tokens and b bytes of a number that is multiplied:

    - weights 4·P, gradients 4·P, average 4·P, AdamW's state 8·P (Muon's 4·P for the layers'
      matrices), all over the number of ranks with ``fsdp``;
    - in bfloat16 a copy of the weights, 2·P, of a layer and the ends alone with ``fsdp``;
    - activations T · (6·D + 4·QKV + 4·MLP) · b a layer, T · (4·D + 3·QKV + 4·MLP) · b under an
      adapter; with ``recompute`` T · D · 4 a layer and
      those of one layer;
    - loss: three chunks of logits, and 4·K·D for the head's gradient.

    Of an adapter gradients, average and state are those of its own numbers, and the head has no
    gradient; the layers' matrices are held in bfloat16 alone, where that is multiplied and no
    shards are made.

    Args:
        config: of the network.
        grid: of a clip.
        prompt_length: ids that prompts are padded to.
        train: batch, ways to save memory and to share the work.
        optimizer: which it is.
        ranks: that share the work.
        is_bfloat16: products are in bfloat16.
        device: ``cpu``, or any other kind.
        lora: adapter that is trained, if it has a rank.
    """
    parameters, layers = num_parameters(config), config.num_hidden_layers
    hidden_matrices = layers * _layer_matrices(config)
    shards = ranks if train.distributed == "fsdp" else 1
    tokens = train.batch_size * (prompt_length + 1 + grid.num_codes)
    number = 2 if is_bfloat16 else 4
    layer = tokens * number * _layer_activations(config, lora)
    kept = layers * (tokens * config.hidden_size * 4) + layer if train.recompute else layers * layer
    head = config.lm_head_size * config.hidden_size
    ends = head + config.vocab_size * config.hidden_size
    trained, stored, copied = parameters, 4 * parameters, parameters
    if shards > 1:
        copied = parameters - (layers - 2) * _layer_parameters(config)
    if lora.rank is not None:
        trained = layers * _layer_adapter(config, lora)
        stored += 4 * trained
        if is_bfloat16 and shards == 1:
            stored, copied = stored - 2 * hidden_matrices, head + trained
        ends = head = 0
    state = 2 * trained
    if optimizer.kind == "muon":
        state -= hidden_matrices if lora.rank is None else trained
    gathered = copied * number if is_bfloat16 or shards > 1 else 0
    return TrainingMemory(
        process=PROCESS_BYTES,
        weights=stored // shards + gathered,
        gradients=4 * trained // shards + (ends * number if shards > 1 else 0),
        average=4 * trained // shards,
        optimizer=4 * state // shards,
        activations=kept + 2 * tokens * config.hidden_size * 4,
        loss=_CHUNKS * CHUNK_BYTES["cpu" if device == "cpu" else "other"] + 4 * head,
    )


def pass_operations(
    config: TransformerConfig,
    grid: LatentGrid,
    prompt_length: int,
    train: TrainSettings,
    lora: LoraSettings = NO_LORA,
) -> float:
    """Floating-point operations of one pass, forward and backward.

    Forward: 2 a token for each number of a matrix, and 4·T a token for each of an attention's
    N·E channels; backward twice as many, once for matrices that aren't trained; layers once more
    with ``recompute``.

    Args:
        config: of the network.
        grid: of a clip.
        prompt_length: ids that prompts are padded to.
        train: clips of a pass.
        lora: adapter that is trained, if it has a rank.
    """
    tokens = prompt_length + 1 + grid.num_codes
    channels = config.num_attention_heads * config.head_dim
    matrices, attention = 2 * tokens * _layer_matrices(config), 4 * tokens**2 * channels
    head = 2 * grid.num_codes * config.lm_head_size * config.hidden_size
    again = 1 if train.recompute else 0
    passes = 3 + again
    layer = passes * (matrices + attention)
    if lora.rank is not None:
        adapter = 2 * tokens * _layer_adapter(config, lora)
        layer += passes * adapter - matrices
        head = head * 2 // 3
    return float((config.num_hidden_layers * layer + 3 * head) * train.batch_size)


def _layer_matrices(config: TransformerConfig) -> int:
    width, inner = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    return width * (2 * queries + 2 * keys) + 3 * width * inner


def _layer_parameters(config: TransformerConfig) -> int:
    return _layer_matrices(config) + 2 * config.hidden_size + 2 * config.head_dim


def _layer_adapter(config: TransformerConfig, lora: LoraSettings) -> int:
    """Numbers in the adapter of a layer."""
    width, inner = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    both = {"q": width + queries, "k": width + keys, "v": width + keys, "o": queries + width}
    both |= dict.fromkeys(("gate", "up", "down"), width + inner)
    return (lora.rank or 0) * sum(both[name.removesuffix("_proj")] for name in lora.targets)


def _layer_activations(config: TransformerConfig, lora: LoraSettings) -> int:
    """Numbers a token that a layer keeps for its gradient; less where its norms have none."""
    attention = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
    own = 6 * config.hidden_size + 4 * attention + 4 * config.intermediate_size
    if lora.rank is None:
        return own
    return own - 2 * config.hidden_size - attention + lora.rank * len(lora.targets)


@dataclass(frozen=True)
class GridPlan:
    """The batches of one grid.

    Args:
        grid: of their clips.
        clips: there are.
        batch_size: clips of a pass.
        tokens: of a pass, prompts among them.
        share: of all passes.
    """

    grid: LatentGrid
    clips: int
    batch_size: int
    tokens: int
    share: float


@dataclass(frozen=True)
class DataPlan:
    """The batches of a run.

    Args:
        grids: all shapes.
        num_uncaptioned: clips without a caption, which train as if it had been dropped.
        num_left_out: clips shorter than ``data.latent_frames``.
    """

    grids: list[GridPlan]
    num_uncaptioned: int
    num_left_out: int

    @property
    def largest(self) -> GridPlan:
        """The shape with the most tokens a pass."""
        return max(self.grids, key=lambda plan: plan.tokens)

    @property
    def clips_per_pass(self) -> float:
        """In the mean."""
        return sum(plan.share * plan.batch_size for plan in self.grids)

    @property
    def tokens_per_pass(self) -> float:
        """In the mean."""
        return sum(plan.share * plan.tokens for plan in self.grids)


def plan_data(batches: TokenBatches) -> DataPlan:
    """The batches that a run has."""
    buckets = batches.order.buckets
    passes = [len(bucket.rows) / bucket.batch_size for bucket in buckets]
    grids = [
        GridPlan(
            bucket.grid,
            len(bucket.rows),
            bucket.batch_size,
            bucket.batch_size * batches.tokens(bucket.grid),
            count / sum(passes),
        )
        for bucket, count in zip(buckets, passes, strict=True)
    ]
    return DataPlan(grids, batches.num_uncaptioned, batches.num_left_out)
