"""A tiny Qwen3 language model with random weights, in a folder as transformers writes it."""

from pathlib import Path

import torch

TOKENIZER = Path(__file__).parents[1] / "golden" / "published_text" / "tokenizer"
NUM_IDS = 292
NUM_EMBEDDINGS = 300  # the published models' tables are padded too
THETA = 500_000.0


def write_qwen3(
    folder: Path, *, tied: bool, dtype: torch.dtype, shard_size: str
) -> torch.nn.Module:
    """Write config, weights and text tokenizer; returns the language model."""
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=NUM_EMBEDDINGS,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        rope_theta=THETA,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        tie_word_embeddings=tied,
        initializer_range=0.2,
        attn_implementation="eager",
    )
    model = Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 2.0)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard_size)
    AutoTokenizer.from_pretrained(TOKENIZER).save_pretrained(folder)
    return model
