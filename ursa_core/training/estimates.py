"""Memory and time that training a transformer takes, told before any weight is made."""

from dataclasses import asdict, dataclass

from ursa_core.grids import LatentGrid
from ursa_core.memory import PROCESS_BYTES
from ursa_core.models.transformer import TransformerConfig
from ursa_core.recipe_fields import OptimizerSettings, TrainSettings
from ursa_core.training.chunked_loss import CHUNK_BYTES

UTILISATION = 0.4
"""Share of the rate of a large matrix product that a training step reaches, about."""
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
    is_half: bool = False,
    device: str = "cpu",
) -> TrainingMemory:
    """Estimate of the memory that a training step takes on each of some ranks.

    With P parameters, T = batch · (S + 1 + L) tokens and b bytes of a number that is multiplied:

    - weights 4·P, gradients 4·P, average 4·P, AdamW's state 8·P (Muon's 4·P for the layers'
      matrices), all over the number of ranks with ``fsdp``;
    - in bfloat16 a copy of the weights, 2·P, of a layer and the ends alone with ``fsdp``;
    - activations T · (6·D + 4·QKV + 4·MLP) · b a layer; with ``recompute`` T · D · 4 a layer and
      those of one layer;
    - loss: three chunks of logits, and 4·K·D for the head's gradient.

    Args:
        config: of the network.
        grid: of a clip.
        prompt_length: ids that prompts are padded to.
        train: batch, ways to save memory and to share the work.
        optimizer: which it is.
        ranks: that share the work.
        is_half: products are in bfloat16.
        device: ``cpu``, or any other kind.
    """
    parameters, layers = num_parameters(config), config.num_hidden_layers
    hidden_matrices = layers * _layer_matrices(config)
    shards = ranks if train.distributed == "fsdp" else 1
    tokens = train.batch_size * (prompt_length + 1 + grid.num_codes)
    number = 2 if is_half else 4
    layer = tokens * number * _layer_activations(config)
    kept = layers * (tokens * config.hidden_size * 4) + layer if train.recompute else layers * layer
    copied = parameters
    if shards > 1:
        copied = parameters - (layers - 2) * _layer_parameters(config)
    ends = (config.vocab_size + config.lm_head_size) * config.hidden_size
    state = 2 * parameters - (hidden_matrices if optimizer.kind == "muon" else 0)
    gathered = copied * number if is_half or shards > 1 else 0
    return TrainingMemory(
        process=PROCESS_BYTES,
        weights=4 * parameters // shards + gathered,
        gradients=4 * parameters // shards + (ends * number if shards > 1 else 0),
        average=4 * parameters // shards,
        optimizer=4 * state // shards,
        activations=kept + 2 * tokens * config.hidden_size * 4,
        loss=_CHUNKS * CHUNK_BYTES["cpu" if device == "cpu" else "other"]
        + 4 * config.lm_head_size * config.hidden_size,
    )


def step_operations(
    config: TransformerConfig, grid: LatentGrid, prompt_length: int, train: TrainSettings
) -> float:
    """Floating-point operations of one optimizer step, all ranks together.

    Forward: 2 a token for each number of a matrix, and 4·T a token for each of an attention's
    N·E channels; backward twice as many; layers once more with ``recompute``.

    Args:
        config: of the network.
        grid: of a clip.
        prompt_length: ids that prompts are padded to.
        train: clips of a step.
    """
    tokens = prompt_length + 1 + grid.num_codes
    channels = config.num_attention_heads * config.head_dim
    layer = 2 * tokens * _layer_matrices(config) + 4 * tokens**2 * channels
    head = 2 * grid.num_codes * config.lm_head_size * config.hidden_size
    passes = 4 if train.recompute else 3
    clip = passes * config.num_hidden_layers * layer + 3 * head
    return float(clip * train.batch_size * train.accumulate)


def _layer_matrices(config: TransformerConfig) -> int:
    width, inner = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    return width * (2 * queries + 2 * keys) + 3 * width * inner


def _layer_parameters(config: TransformerConfig) -> int:
    return _layer_matrices(config) + 2 * config.hidden_size + 2 * config.head_dim


def _layer_activations(config: TransformerConfig) -> int:
    """Numbers a token that a layer keeps for its gradient."""
    attention = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
    return 6 * config.hidden_size + 4 * attention + 4 * config.intermediate_size
