"""Memory that a guided pass of the network takes beside the formula's estimate.

    MALLOC_MMAP_THRESHOLD_=1048576 .venv/bin/python benchmarks/network_memory.py \
        [--size 1.7B] [--layers 2] [--grid 13x20x32] [--dtype bfloat16]

Random weights. The variable has what is freed not count (see `full_size.py`). Layers hold nothing
for one another where no gradient is asked for, so one takes the memory of all. Measured is the
growth of the process's peak.
"""

import argparse
import json
from dataclasses import replace

import torch
from peak_memory import peak_memory
from torch import Tensor

from ursa_core.bundle.folder import shipped_models
from ursa_core.bundle.summary import TransformerSizes, summary
from ursa_core.grids import LatentGrid, PixelShape
from ursa_core.models.presets import PRESETS
from ursa_core.models.transformer import Transformer, TransformerConfig
from ursa_core.sampling.guidance import Guidance, guided_hidden

TEXT_IDS, NUM_CODES, PROMPT_LENGTH = 1000, 2000, 320


def network(name: str, layers: int, dtype: torch.dtype) -> Transformer:
    """A network of a preset's widths and few layers."""
    size = replace(PRESETS[name], num_hidden_layers=layers)
    model = Transformer(TransformerConfig.from_size(size, TEXT_IDS, NUM_CODES, 1))
    model.initialise_(torch.randn(NUM_CODES, 6), torch.Generator().manual_seed(0))
    return model.to(dtype).eval()


def measured(model: Transformer, grid: LatentGrid, in_turn: bool) -> int:
    """Bytes by which a guided pass raises the peak."""
    ids = torch.zeros(1, PROMPT_LENGTH, dtype=torch.int64)
    codes = torch.randint(NUM_CODES, (1, grid.num_codes))
    rows = 1 if in_turn else 2

    def passes(prompt_ids: Tensor, x_t: Tensor) -> Tensor:
        parts = zip(prompt_ids.split(rows), x_t.split(rows), strict=True)
        return torch.cat([model(ids, codes, grid) for ids, codes in parts])

    with torch.inference_mode():
        frame = LatentGrid(1, grid.rows, grid.columns)
        model(ids, codes[:, : frame.num_codes], frame)  # what libraries set up
        before = peak_memory(since_now=True)
        guided_hidden(passes, ids, ids, codes, torch.tensor(0.5), Guidance(7.0))
        return peak_memory() - before


def main() -> None:
    """Print measured and estimated bytes, both halves of guidance at a time and in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=list(PRESETS), default="1.7B")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--grid", default="13x20x32")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    wanted = parser.parse_args()
    grid = LatentGrid(*map(int, wanted.grid.split("x")))
    dtype = getattr(torch, wanted.dtype)
    model = network(wanted.size, wanted.layers, dtype)
    sizes = {name: getattr(model.config, name) for name in TransformerSizes.__dataclass_fields__}
    nano = summary(shipped_models()["nano"])
    settings = replace(nano.settings, max_prompt_length=PROMPT_LENGTH)
    planned = replace(nano, transformer=TransformerSizes(**sizes), settings=settings)
    time, space = nano.strides.temporal, nano.strides.spatial
    shape = PixelShape(1 + (grid.frames - 1) * time, grid.rows * space, grid.columns * space)
    for in_turn in (False, True):
        estimated = planned.memory(dtype.itemsize, shape, offload=in_turn).activations
        found = measured(model, grid, in_turn)
        print(
            json.dumps({"in_turn": in_turn, "measured_bytes": found, "estimated_bytes": estimated})
        )


if __name__ == "__main__":
    main()
