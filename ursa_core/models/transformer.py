"""The whole network: a bidirectional Qwen3-style transformer over text and noisy codes.

Sequence: ``[text ids, left-padded] [begin of video] [codes, frame by frame, row by row]``. It
predicts the data codes x_1 from x_t and text; there is no time input, since the noise level shows
in the codes. Attention is full, the padding included. Weight names are those of Hugging Face's
Qwen3, so that its checkpoints and the published URSA ones load as they are.
"""

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ursa_core.configs import TRANSFORMER_CLASS, Whole, number, read_config, unusable, whole
from ursa_core.errors import CheckpointError, ShapeError
from ursa_core.grids import MLP_ROWS, LatentGrid
from ursa_core.models.presets import Size

RopeTheta = Annotated[float, number(1, 1e12)]
NormEps = Annotated[float, number(1e-12, 1)]
"""Ranges in which float32 keeps rotations apart and norms finite."""
SCORE_BYTES = 1 << 19
"""Size of the attention scores held at once: they stay in the cache, in memory mapped once."""
SCORE_ROWS = 64
"""Smallest number of queries per product."""


@dataclass(frozen=True)
class TransformerConfig:
    """Size and vocabulary of a transformer; field names are those of the published config."""

    hidden_size: Whole  # width D
    intermediate_size: Whole  # width inside the MLP
    num_hidden_layers: Whole
    num_attention_heads: Whole
    num_key_value_heads: Whole  # number of key and value heads, a divisor of the query heads
    lm_vocab_size: Whole  # number of text ids; code k has the id lm_vocab_size + k
    lm_head_size: Whole  # number of codes K
    bov_token_id: Annotated[int, whole(0)]  # text id of the token before the codes
    head_dim: Annotated[int, whole(1, 1 << 16)] = 128  # width of a head, a multiple of 16
    rope_theta: RopeTheta = 1_000_000.0  # base of the rotary frequencies
    rms_norm_eps: NormEps = 1e-6  # constant under the root in the norms

    @classmethod
    def from_size(
        cls, size: Size, lm_vocab_size: int, num_codes: int, bov_id: int
    ) -> "TransformerConfig":
        """Configuration of a preset size for a text vocabulary and a codebook."""
        return cls(
            **asdict(size), lm_vocab_size=lm_vocab_size, lm_head_size=num_codes, bov_token_id=bov_id
        )

    @property
    def vocab_size(self) -> int:
        """Text ids and codes together."""
        return self.lm_vocab_size + self.lm_head_size

    def to_json(self) -> dict[str, Any]:
        """The published ``transformer/config.json``."""
        return {"_class_name": TRANSFORMER_CLASS, **asdict(self), "vocab_size": self.vocab_size}

    @classmethod
    def from_json(cls, config: dict[str, Any]) -> "TransformerConfig":
        """Read a ``transformer/config.json``; null stands for a default.

        `CheckpointError` for another class, a value that is missing or that no such network has,
        and a vocabulary that doesn't add up.
        """
        file, name = "transformer/config.json", config.get("_class_name")
        if name != TRANSFORMER_CLASS:
            hint = f"this version reads {TRANSFORMER_CLASS}"
            raise CheckpointError(f"{file} describes a {name!r}", hint)
        read = read_config(cls, {k: v for k, v in config.items() if v is not None}, file)
        heads, groups = read.num_attention_heads, read.num_key_value_heads
        if heads % groups:
            raise unusable(file, "num_key_value_heads", groups, f"a divisor of the {heads} heads")
        if read.head_dim % 16:
            raise unusable(file, "head_dim", read.head_dim, "a multiple of 16")
        if read.bov_token_id >= read.lm_vocab_size:
            expected = f"a text id, below lm_vocab_size {read.lm_vocab_size}"
            raise unusable(file, "bov_token_id", read.bov_token_id, expected)
        if config.get("vocab_size", read.vocab_size) != read.vocab_size:
            raise CheckpointError(
                f"{file}: vocab_size {config['vocab_size']!r} isn't"
                f" lm_vocab_size {read.lm_vocab_size} + lm_head_size {read.lm_head_size}",
                "get the model again",
            )
        return read


class Linear(nn.Linear):
    """A matrix product without bias, left empty: ``initialise_`` or a checkpoint fills it."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__(width, out_width, bias=False)

    def reset_parameters(self) -> None:
        """Draw nothing."""


class Embedding(nn.Embedding):
    """A table of vectors, left empty too."""

    def reset_parameters(self) -> None:
        """Draw nothing."""


class RMSNorm(nn.RMSNorm):
    """Root mean square norm over the last axis, computed in float32, with a gain."""

    eps: float

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class Attention(nn.Module):
    """Grouped-query attention of all positions to all, with normalised queries and keys."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, head = config.hidden_size, config.head_dim
        self.q_proj = Linear(width, config.num_attention_heads * head)
        self.k_proj = Linear(width, config.num_key_value_heads * head)
        self.v_proj = Linear(width, config.num_key_value_heads * head)
        self.o_proj = Linear(config.num_attention_heads * head, width)
        self.q_norm = RMSNorm(head, config.rms_norm_eps)
        self.k_norm = RMSNorm(head, config.rms_norm_eps)
        self.head_dim = head

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q, k, v = (
            projection(x).unflatten(-1, (-1, self.head_dim))
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(self.q_norm(q), cos, sin), rotate(self.k_norm(k), cos, sin)
        y = attend(*(heads.transpose(1, 2) for heads in (q, k, v)))
        return self.o_proj(y.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """SwiGLU, in chunks of positions where no gradient is needed."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.gate_proj = Linear(width, inner)
        self.up_proj = Linear(width, inner)
        self.down_proj = Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.shape[:-1].numel() <= MLP_ROWS:
            return self._gated(x)
        y = torch.empty_like(x)
        chunks = (z.view(-1, z.shape[-1]).split(MLP_ROWS) for z in (y, x))
        for into, part in zip(*chunks, strict=True):
            into.copy_(self._gated(part))
        return y

    def _gated(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention and MLP, each after a norm and added to its input."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Backbone(nn.Module):
    """Embeddings of text and codes, the layers, the last norm."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, ids: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)


class Transformer(nn.Module):
    """Predicts data codes from noisy ones and a prompt, once its weights are drawn or loaded."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        self.lm_head = Linear(config.hidden_size, config.lm_head_size)
        self._rotations: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}

    def forward(self, prompt_ids: Tensor, codes: Tensor, grid: LatentGrid) -> Tensor:
        """Hidden states (B, L, D); the one at i predicts code i (the shift by one is here).

        Text ids are int64 (B, S), left-padded, codes x_t int64 (B, L) with L = F·H·W of the grid,
        else ShapeError.
        """
        if codes.shape[-1] != grid.num_codes:
            hint = f"give {grid.num_codes} codes per clip"
            raise ShapeError(f"{codes.shape[-1]} codes don't fill a grid of {grid}", hint)
        bov = prompt_ids.new_full((len(prompt_ids), 1), self.config.bov_token_id)
        ids = torch.cat([prompt_ids, bov, codes + self.config.lm_vocab_size], 1)
        cos, sin = self.rotary(prompt_ids.shape[1], grid)
        hidden: Tensor = self.model(ids, cos, sin)
        return hidden[:, prompt_ids.shape[1] : -1]

    @torch.no_grad()
    def add_words_(self, copied: int, changes: Tensor) -> None:
        """Append N text ids, embedded as ``copied`` plus ``changes`` (N, D); codes move up by N."""
        table, ids = self.model.embed_tokens, self.config.lm_vocab_size
        weight = with_words(table.weight, ids, copied, changes)
        table.weight, table.num_embeddings = nn.Parameter(weight), len(weight)
        self.config = replace(self.config, lm_vocab_size=ids + len(changes))

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., K) of hidden states (..., D) of any float dtype."""
        return self.lm_head(hidden.to(self.lm_head.weight.dtype))

    def rotary(self, prompt_length: int, grid: LatentGrid) -> tuple[Tensor, Tensor]:
        """Cosines and sines (S + 1 + L, head_dim) in the network's dtype, cached per shape."""
        weight = self.lm_head.weight
        key = (prompt_length, grid, weight.device, weight.dtype)
        if key not in self._rotations:
            with torch.inference_mode(False):  # training may use what sampling has cached
                coordinates = positions(prompt_length, grid).to(weight.device)
                cos, sin = rotations(coordinates, self.config.head_dim, self.config.rope_theta)
                self._rotations[key] = cos.to(weight.dtype), sin.to(weight.dtype)
        return self._rotations[key]

    @torch.no_grad()
    def initialise_(self, codebook: Tensor, generator: torch.Generator) -> None:
        """Draw fresh weights, code embeddings and head from the codebook's geometry.

        Matrices are normal with variance 1 / fan-in; those that write to the residual stream are
        smaller by the square root of twice the depth. A code's embedding and its head row begin
        as random projections of its ``codebook_features``, so that near codes begin near and the
        network learns their order at once. A mask state, after the codebook (K, C), stays random.
        The generator is on the CPU.
        """
        depth = (2 * self.config.num_hidden_layers) ** -0.5
        for name, weight in self.named_parameters():
            if weight.ndim < 2:
                weight.fill_(1.0)
                continue
            std = weight.shape[1] ** -0.5
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                std *= depth
            if "embed_tokens" in name:
                std = 1.0
            weight.copy_(torch.empty(weight.shape).normal_(0, std, generator=generator))
        features = codebook_features(codebook.cpu().float())
        width = self.config.hidden_size
        for rows, scale in (
            (self.model.embed_tokens.weight[self.config.lm_vocab_size :], 1.0),
            (self.lm_head.weight, 0.5 * width**-0.5),
        ):
            projection = torch.empty(features.shape[1], width).normal_(generator=generator)
            noise = torch.empty(len(features), width).normal_(0, 0.2, generator=generator)
            rows[: len(features)].copy_((features @ projection + noise) * scale)


# Attention and norms as a CPU does them fastest without gradients. PyTorch's fused attention
# multiplies 16-bit numbers there at less than half the rate of plain products, and its root mean
# square norm takes several passes. Both are tested equal to these.


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention (B, N, S, E); of keys and values (B, G, S, E) head n reads n·G // N."""
    heads, groups, width = q.shape[1], k.shape[1], q.shape[-1]
    if not _plain_cpu(q) or q.dtype == torch.float32:
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=groups != heads)
    queries = q.reshape(-1, heads // groups * q.shape[2], width)
    keys = k.reshape(-1, *k.shape[2:]).transpose(1, 2)
    values = v.reshape(-1, *v.shape[2:])
    rows = max(SCORE_ROWS, SCORE_BYTES // (len(keys) * keys.shape[2] * q.element_size()))
    y = torch.empty_like(queries)
    for part, into in zip(queries.split(rows, 1), y.split(rows, 1), strict=True):
        scores = torch.baddbmm(q.new_empty(1, 1, 1), part, keys, beta=0, alpha=width**-0.5)
        into.copy_(torch.bmm(scores.softmax(-1), values))
    return y.view(q.shape)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalise x (..., D): over its root mean square, computed in float32, times the gain (D,)."""
    if not _plain_cpu(x):
        return F.rms_norm(x, weight.shape, weight.to(x.dtype), eps)
    wide = x.to(torch.float32, copy=True)
    mean = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1])
    return wide.mul_(mean.add_(eps).rsqrt_()).mul_(weight.float()).to(x.dtype)


def _plain_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.is_grad_enabled()


def positions(prompt_length: int, grid: LatentGrid) -> Tensor:
    """Coordinates (time, row, column) of text, begin of video and codes, int64 (S + 1 + L, 3).

    Text and begin of video count 0, 1, … in all three coordinates, so that their positions are
    one-dimensional; a code has its frame, which counts on from there, its row and its column.
    """
    text = torch.arange(prompt_length + 1).unsqueeze(1).expand(-1, 3)
    cells = torch.cartesian_prod(
        torch.arange(grid.frames) + prompt_length + 1,
        torch.arange(grid.rows),
        torch.arange(grid.columns),
    )
    return torch.cat([text, cells.view(-1, 3)])


def rotations(coordinates: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, each float32 (S, head_dim), as ``rotate`` takes them.

    The sines are negative in the first half. Frequency i turns with coordinate i mod 3, of int64
    (S, 3), for the first 3·(head_dim // 8) frequencies, then with row and column in turn. Source:
    Sec. 4.1 of the paper; order of the published models.
    """
    half = head_dim // 2
    index = torch.arange(half)
    interleaved = 3 * (head_dim // 8)
    axis = torch.where(index < interleaved, index % 3, 1 + (index - interleaved) % 2)
    frequency = 1.0 / theta ** (index.float() / half)
    angles = coordinates.float()[:, axis] * frequency.to(coordinates.device)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the heads (B, S, N, head_dim) by their positions' angles, first half against second."""
    half = x.shape[-1] // 2
    return (x * cos[:, None]).add_(x.roll(half, -1).mul_(sin[:, None]))


def with_words(table: Tensor, ids: int, copied: int, changes: Tensor) -> Tensor:
    """A table of embeddings with rows after its ``ids`` of text, see `Transformer.add_words_`."""
    rows = table[copied].float() + changes.to(table.device)
    return torch.cat([table[:ids], rows.to(table.dtype), table[ids:]])


def codebook_features(codebook: Tensor) -> Tensor:
    """Features (K, M) of code vectors (K, C), each row of unit length.

    Per channel there is a Gaussian bump around each of up to 16 places in its range; codes with
    near vectors have a large inner product.
    """
    low, high = codebook.amin(0), codebook.amax(0)
    bumps = []
    for channel in range(codebook.shape[1]):
        values = codebook[:, channel]
        places = torch.unique(values)
        if len(places) > 16:
            places = torch.linspace(float(low[channel]), float(high[channel]), 16)
        width = (places[1] - places[0]).clamp_min(1e-6) if len(places) > 1 else torch.tensor(1.0)
        bumps.append(torch.exp(-(((values[:, None] - places) / width) ** 2)))
    return F.normalize(torch.cat(bumps, 1), dim=1)
