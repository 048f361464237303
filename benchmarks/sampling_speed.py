"""How much of the machine's matrix-product rate the sampling loop reaches.

    python benchmarks/sampling_speed.py [--model nano] [--repeats 5]

Counts the multiply-adds of the network's own matrix products in one sampled clip (projections,
MLP, attention, head), divides by the time of the whole loop (network, guidance, draws, jumps), and
compares with the rate of the same matrix products alone, timed in the same process, in turn.
"""

import argparse
import json
import platform
import statistics
import time

import torch
import torch.nn.functional as F  # noqa: N812

import ursa_core
from ursa_core.bundle.bundle import Bundle, load_bundle
from ursa_core.devices import pick_device, pick_dtype
from ursa_core.sampling.generate import Request, generate
from ursa_core.sampling.guidance import Guidance
from ursa_core.sampling.time_grid import time_grid

PROMPT = "a red circle moves right on a navy background"


def products(bundle: Bundle, batch: int) -> list[tuple[int, int, int]]:
    """Shapes (m, k, n) of the linear layers' products in one pass over ``batch`` sequences."""
    config = bundle.transformer.config
    codes = bundle.grid(bundle.settings.shape).num_codes
    rows = batch * (bundle.settings.max_prompt_length + 1 + codes)
    width, inner = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    layer = [
        (rows, width, queries),
        (rows, width, keys),
        (rows, width, keys),
        (rows, queries, width),
        (rows, width, inner),
        (rows, width, inner),
        (rows, inner, width),
    ]
    return layer * config.num_hidden_layers


def attention_flops(bundle: Bundle, batch: int) -> int:
    """Operations of the attention products in one pass."""
    config = bundle.transformer.config
    length = bundle.settings.max_prompt_length + 1 + bundle.grid(bundle.settings.shape).num_codes
    each = 2 * 2 * config.num_attention_heads * length**2 * config.head_dim
    return batch * config.num_hidden_layers * each


def head_product(bundle: Bundle) -> tuple[int, int, int]:
    """Shape of the head's product, once a step: guidance acts before it."""
    config = bundle.transformer.config
    codes = bundle.grid(bundle.settings.shape).num_codes
    return codes, config.hidden_size, config.lm_head_size


def passes(bundle: Bundle) -> list[int]:
    """Sequences in the network's pass of each step."""
    settings = bundle.settings
    guidance = Guidance(settings.guidance, settings.guidance_interval)
    active = guidance.active(time_grid(settings.steps, settings.shift)[:-1])
    return [2 if bool(on) else 1 for on in active]


def main() -> None:
    """Print the figures as a table and as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    device = pick_device(given.device)
    dtype = pick_dtype("auto", device)
    bundle = load_bundle(given.model, device, dtype)
    steps = passes(bundle)
    shapes = [
        shape for batch in steps for shape in [*products(bundle, batch), head_product(bundle)]
    ]
    linear = sum(2 * m * k * n for m, k, n in shapes)
    flops = linear + sum(attention_flops(bundle, batch) for batch in steps)
    weights = {(k, n): torch.randn(n, k, device=device, dtype=dtype) for _, k, n in shapes}
    inputs = {(m, k): torch.randn(m, k, device=device, dtype=dtype) for m, k, _ in shapes}

    def run_products() -> None:
        for m, k, n in shapes:
            F.linear(inputs[m, k], weights[k, n])

    def run_loop() -> None:
        generate(bundle, Request(PROMPT))

    def seconds(work) -> float:  # type: ignore[no-untyped-def]
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    pairs = []
    with torch.inference_mode():
        for number in range(given.repeats + 1):
            pair = seconds(run_loop), seconds(run_products)
            if number:
                pairs.append(pair)
    shares = [(flops / loop) / (linear / product) for loop, product in pairs]
    figures = {
        "loop_seconds": statistics.median(loop for loop, _ in pairs),
        "loop_gflops": flops / 1e9 / statistics.median(loop for loop, _ in pairs),
        "matrix_gflops": linear / 1e9 / statistics.median(product for _, product in pairs),
        "share_of_matrix_rate": statistics.median(shares),
        "share_range": [min(shares), max(shares)],
        "steps": len(steps),
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "machine": platform.processor() or platform.machine(),
        "ursa": ursa_core.__version__,
        "torch": torch.__version__,
    }
    print(f"loop      {figures['loop_seconds']:.3f} s, {figures['loop_gflops']:.0f} GFLOP/s")
    print(f"products  {figures['matrix_gflops']:.0f} GFLOP/s")
    low, high = figures["share_range"]
    print(f"share     {figures['share_of_matrix_rate']:.0%} ({low:.0%} to {high:.0%})")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
