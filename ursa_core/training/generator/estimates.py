"""Estimates before training: its batches, its memory and its operations."""

from dataclasses import dataclass, replace

from torch import nn

from ursa_core.bundle.summary import PROCESS_BYTES
from ursa_core.grids import LatentGrid
from ursa_core.models.transformer import TransformerConfig
from ursa_core.path.base import ProbPath
from ursa_core.recipe.fields import LoraSettings, OptimizerSettings, PriorSettings, TrainSettings
from ursa_core.tokens.order import Bucket
from ursa_core.training.generator.batches import TokenBatches
from ursa_core.training.generator.chunked_loss import CHUNK_BYTES

UTILISATION = 0.4  # about the rate of a training step, as a share of that of a matrix product
NO_LORA = LoraSettings()
_CHUNKS = 3  # logits, their logarithms and the gradient


def num_parameters(config: TransformerConfig) -> int:
    """Number of parameters of a transformer."""
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
) -> dict[str, int]:
    """Estimated bytes of a training step on each rank's device, by part, and their total.

    With P parameters, T = batch · (S + 1 + L) tokens, and b bytes per number in products:

    - weights 4·P, gradients 4·P, average 4·P, AdamW's state 8·P (Muon's 4·P for the layers'
      matrices), all divided by the number of ranks with ``fsdp``;
    - a copy of the weights in bfloat16, 2·P; with ``fsdp`` of a layer and both ends only;
    - activations per layer: T · (6·D + 4·QKV + 4·MLP) · b, or T · (4·D + 3·QKV + 4·MLP) · b with
      an adapter; with ``recompute`` T · D · 4 per layer, and all of one layer;
    - loss: three chunks of logits, and 4·K·D for the head's gradient.

    With an adapter, only its parameters have gradients, average and state. The layers' matrices are
    then held in bfloat16 only, if products (``is_bfloat16``) are and weights aren't sharded.
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
    parts = {
        "process": PROCESS_BYTES,
        "weights": stored // shards + gathered,
        "gradients": 4 * trained // shards + (ends * number if shards > 1 else 0),
        "average": 4 * trained // shards,
        "optimizer": 4 * state // shards,
        "activations": kept + 2 * tokens * config.hidden_size * 4,
        "loss": _CHUNKS * CHUNK_BYTES["cpu" if device == "cpu" else "other"] + 4 * head,
    }
    return {**parts, "total": sum(parts.values())}


def with_held(parts: dict[str, int], path: ProbPath, **networks: nn.Module) -> dict[str, int]:
    """The same with what stays beside it: float32 networks by name, and the path's table."""
    parts = dict(parts)
    held = {name: 4 * sum(p.numel() for p in own.parameters()) for name, own in networks.items()}
    held["table"] = path.table_bytes
    total = parts.pop("total") + sum(held.values())
    return {**parts, **held, "total": total}


def pass_operations(
    config: TransformerConfig,
    grid: LatentGrid,
    prompt_length: int,
    recompute: bool,
    lora: LoraSettings = NO_LORA,
) -> int:
    """Floating-point operations of one forward and backward pass, per clip.

    Per token, forward: 2 for each number of a matrix, and 4·T for each of an attention's N·E
    channels. Backward takes twice as many, or as many for frozen matrices.
    """
    tokens = prompt_length + 1 + grid.num_codes
    channels = config.num_attention_heads * config.head_dim
    matrices, attention = 2 * tokens * _layer_matrices(config), 4 * tokens**2 * channels
    head = 2 * grid.num_codes * config.lm_head_size * config.hidden_size
    passes = 4 if recompute else 3
    layer = passes * (matrices + attention)
    if lora.rank is not None:
        adapter = 2 * tokens * _layer_adapter(config, lora)
        layer += passes * adapter - matrices
        head = head * 2 // 3
    return config.num_hidden_layers * layer + 3 * head


def _matrices(config: TransformerConfig) -> dict[str, tuple[int, int]]:
    """Sizes of a layer's matrices by name."""
    width, inner = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    others = {"q": queries, "k": keys, "v": keys, "o": queries}
    others |= dict.fromkeys(("gate", "up", "down"), inner)
    return {f"{name}_proj": (width, other) for name, other in others.items()}


def _layer_matrices(config: TransformerConfig) -> int:
    return sum(rows * columns for rows, columns in _matrices(config).values())


def _layer_parameters(config: TransformerConfig) -> int:
    return _layer_matrices(config) + 2 * config.hidden_size + 2 * config.head_dim


def _layer_adapter(config: TransformerConfig, lora: LoraSettings) -> int:
    return (lora.rank or 0) * sum(sum(_matrices(config)[name]) for name in lora.targets)


def _layer_activations(config: TransformerConfig, lora: LoraSettings) -> int:
    """Numbers per token that a layer keeps for the backward pass; fewer if its norms are frozen."""
    attention = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
    own = 6 * config.hidden_size + 4 * attention + 4 * config.intermediate_size
    if lora.rank is None:
        return own
    return own - 2 * config.hidden_size - attention + lora.rank * len(lora.targets)


@dataclass(frozen=True)
class GridPlan:
    """The batches of one grid."""

    grid: LatentGrid
    clips: int
    batch_size: int  # clips per pass
    tokens: int  # tokens per pass, prompts included
    share: float  # share of all passes


@dataclass(frozen=True)
class DataPlan:
    """The batches of a run, by grid."""

    grids: list[GridPlan]
    sets: list[tuple[str, int, float]]  # folders, clips and share of each data set
    num_uncaptioned: int  # clips without a caption; they train as if it had been dropped
    num_left_out: int  # clips shorter than `data.latent_frames`

    @property
    def largest(self) -> GridPlan:
        """The grid with the most tokens per pass."""
        return max(self.grids, key=lambda plan: plan.tokens)


def plan_data(batches: TokenBatches) -> DataPlan:
    """The batches of a run, by grid."""
    by_grid: dict[LatentGrid, list[Bucket]] = {}
    for bucket in batches.order.buckets:
        by_grid.setdefault(bucket.grid, []).append(bucket)
    grids = []
    for grid, own in by_grid.items():
        clips, size = sum(len(bucket.rows) for bucket in own), own[0].batch_size
        passes = sum(len(b.rows) if b.share is None else b.share for b in own) / size
        grids.append(GridPlan(grid, clips, size, size * batches.tokens(grid), passes))
    total = sum(each.share for each in grids)
    grids = [replace(each, share=each.share / total) for each in grids]
    return DataPlan(grids, batches.sets, batches.num_uncaptioned, batches.num_left_out)


def with_prior(
    data: DataPlan, batches: TokenBatches, grid: LatentGrid, prior: PriorSettings
) -> DataPlan:
    """The same with prior clips, not all of which are made yet."""
    clips, share = prior.num, prior.share
    grids = {each.grid: replace(each, share=each.share * (1 - share)) for each in data.grids}
    size = batches.batch_size(grid)
    own = grids.get(grid, GridPlan(grid, 0, size, size * batches.tokens(grid), 0.0))
    grids[grid] = replace(own, clips=own.clips + clips, share=own.share + share)
    total = sum(part for *_, part in data.sets)
    sets = [(name, count, part / total * (1 - share)) for name, count, part in data.sets]
    return replace(data, grids=[*grids.values()], sets=[*sets, (prior.shards, clips, share)])
