"""`ursa sample`: text to video."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ursa_cli import options, output
from ursa_core.errors import UsageError

if TYPE_CHECKING:
    from ursa_cli.sample_plan import Plan
    from ursa_core.bundle import Bundle
    from ursa_core.sampling.generate import GenerateOptions

_CLIP = "Clip"
_SAMPLING = "Sampling"
_MODELS = "the model's"
_MAX_SEED = 2**63


def sample(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help='What to show; "" leaves it to the model.')
    ],
    out: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="File to write: .mp4, .mkv (lossless), .gif, .webp or .png; a name without "
            "extension is a folder of PNG frames.",
            show_default=False,
        ),
    ],
    model: options.Model = "nano",
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Same seed, same video; 0 to 2^63 - 1.", show_default="random"
        ),
    ] = None,
    num: Annotated[
        int,
        typer.Option(metavar="N", help="Videos to make, 1 to 10000, as OUT-0000, OUT-0001, ..."),
    ] = 1,
    negative: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What guidance leads away from.", show_default=_MODELS),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Frames, 1 + a multiple of the model's temporal stride, at most 1000000; "
            "1 is an image.",
            show_default=_MODELS,
            rich_help_panel=_CLIP,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="Height and width in pixels, multiples of the model's spatial stride.",
            show_default=_MODELS,
            rich_help_panel=_CLIP,
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            metavar="R",
            help="Frames a second of the file, 0.1 to 1000; a gif has at most 50.",
            show_default=_MODELS,
            rich_help_panel=_CLIP,
        ),
    ] = None,
    motion: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Amount of motion, 0 or more, for models trained with it.",
            show_default=_MODELS,
            rich_help_panel=_CLIP,
        ),
    ] = None,
    crf: Annotated[
        int,
        typer.Option(
            metavar="N", help="Quality of an mp4, 0 (lossless) to 51.", rich_help_panel=_CLIP
        ),
    ] = 18,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Steps from noise to video, 1 to 10000.",
            show_default=_MODELS,
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="How strictly the prompt is followed, 0 to 100; 1 is off.",
            show_default=_MODELS,
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    guidance_interval: Annotated[
        str | None,
        typer.Option(
            metavar="LO:HI",
            help="Times, 0 (noise) to 1 (video), between which guidance acts.",
            show_default=_MODELS,
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    solver: Annotated[
        str | None,
        typer.Option(
            metavar="S",
            help="integrated, or euler as the paper's code has it.",
            show_default=_MODELS,
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    shift: Annotated[
        float | None,
        typer.Option(
            metavar="L",
            help="Time shift, above 0; more than 1 spends more steps near noise.",
            show_default=_MODELS,
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(
            metavar="T", help="Randomness of the draws, above 0.", rich_help_panel=_SAMPLING
        ),
    ] = 1.0,
    top_p: Annotated[
        float,
        typer.Option(
            metavar="P",
            help="Share of probability drawn from, above 0 to 1 (all).",
            rich_help_panel=_SAMPLING,
        ),
    ] = 1.0,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    offload: options.Offload = False,
    compiled: options.Compile = False,
    save_tokens: Annotated[
        str | None,
        typer.Option(
            metavar="P",
            help="Write the codes to P, a .safetensors file, before decoding.",
            show_default=False,
            rich_help_panel=options.RUN_PANEL,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print what would be done, and stop.",
            rich_help_panel=options.RUN_PANEL,
        ),
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    force: options.Force = False,
) -> None:
    """Make a video, or an image, from text.

    Examples:
      ursa sample "a red circle moves right on a navy background" -o out.mp4

      ursa sample "a green star spins on a black background" -o star.gif --seed 7
    """
    output.configure(as_json=as_json, quiet=quiet)
    given: dict[str, Any] = {
        "negative": negative,
        "frames": frames,
        "fps": fps,
        "steps": steps,
        "guidance": guidance,
        "shift": shift,
    }
    _check(given, seed, num, motion, crf, temperature, top_p)
    for name, text in (("prompt", prompt), ("negative prompt", negative)):
        options.require_text(name, text, may_be_empty=True)
    for name, text in (("output", out), ("model", model), ("file for the codes", save_tokens)):
        options.require_text(name, text)
    if size is not None:
        given["height"], given["width"] = options.parse_size(size)
    if guidance_interval is not None:
        given["guidance_interval"] = options.parse_interval(guidance_interval)

    # What needs no model is refused before torch is imported, which takes seconds.
    from ursa_cli import sample_plan
    from ursa_core.media import check_output

    written = sample_plan.targets(out, save_tokens, num)
    for target in written:
        target.check(force)

    import secrets

    from ursa_core.devices import check_compiler, pick_device, pick_dtype
    from ursa_core.model_summary import summary
    from ursa_core.sampling.generate import GenerateOptions

    found = summary(options.model_folder(model))
    solvers = found.solvers
    options.require(solver in (None, *solvers), "--solver", solver, " or ".join(solvers))
    if motion is not None and not found.settings.motion_prefix:
        raise UsageError(f"the model {model} takes no --motion", "describe it in the prompt")
    settings = replace(found.settings, **{k: v for k, v in given.items() if v is not None})
    found.strides.grid(settings.shape)  # refuses a shape that doesn't fit
    check_output(written[0].media, force, settings.shape, settings.fps)
    wanted = GenerateOptions(
        prompt=prompt,
        seed=secrets.randbelow(_MAX_SEED) if seed is None else seed,
        num=num,
        negative=settings.negative,
        steps=settings.steps,
        guidance=settings.guidance,
        guidance_interval=settings.guidance_interval,
        solver=solver or solvers[0],
        shift=settings.shift,
        frames=settings.frames,
        height=settings.height,
        width=settings.width,
        temperature=temperature,
        top_p=None if top_p == 1 else top_p,
        motion=motion,
    )
    run_device = pick_device(device)
    if compiled:
        check_compiler(run_device)
    run_dtype = pick_dtype(dtype, run_device)
    plan = sample_plan.Plan(
        found, settings, wanted, run_device, run_dtype, crf, written, offload, compiled
    )
    plan.check_memory()
    if dry_run:
        payload, lines = plan.described()
        output.data(payload, lines=lines, paths=payload["outputs"])
        return
    _make(plan, tell_seed=seed is None)


def _check(
    given: dict[str, Any],
    seed: int | None,
    num: int,
    motion: float | None,
    crf: int,
    temperature: float,
    top_p: float,
) -> None:
    """Refuse values that nothing could be made of, before anything is loaded."""
    from math import inf

    require = options.require
    ranges = {  # what is given, lowest and highest value, in words
        "fps": (0.1, 1000, "0.1 to 1000"),
        "frames": (1, 1_000_000, "1 to 1000000"),
        "steps": (1, 10_000, "1 to 10000"),
        "guidance": (0, 100, "0 to 100; 1 is off"),
        "shift": (5e-324, 1.7e308, "above 0; 1 is none"),
    }
    for name, (low, high, words) in ranges.items():
        value = given[name]
        require(value is None or low <= value <= high, f"--{name}", value, words)
    require(seed is None or 0 <= seed < _MAX_SEED, "--seed", seed, "0 to 2^63 - 1")
    require(1 <= num <= 10_000, "--num", num, "1 to 10000")
    require(motion is None or 0 <= motion < inf, "--motion", motion, "0 or more, as 9")
    require(0 <= crf <= 51, "--crf", crf, "0 (lossless) to 51 (worst)")
    require(0 < temperature < inf, "--temperature", temperature, "a number above 0")
    require(0 < top_p <= 1, "--top-p", top_p, "above 0 to 1 (all)")


def _make(plan: "Plan", tell_seed: bool) -> None:
    """Generate, decode and write, one video after the other."""
    from ursa_core.bundle import load_bundle, tokenizer_identity
    from ursa_core.data.token_files import save_tokens
    from ursa_core.media import write_media
    from ursa_core.sampling.generate import decode, generate

    wanted, fps = plan.wanted, plan.settings.fps
    bundle = load_bundle(
        plan.found.folder, plan.device, plan.dtype, offload=plan.offload, compiled=plan.compiled
    )
    _warn_of_prompt(bundle, wanted)
    identity = tokenizer_identity(bundle.folder)
    outputs = []
    if tell_seed:
        output.note(f"seed {wanted.seed}")
    with output.progress(plan.settings.steps * wanted.num, "sample") as advance:
        for made in generate(bundle, wanted, lambda *_: advance()):
            target = plan.targets[made.index]
            metadata = {**plan.provenance, "index": made.index}
            if target.tokens is not None:
                save_tokens(target.tokens, made.codes, {**metadata, "tokenizer": identity})
            write_media(target.media, decode(bundle, made.codes), fps, metadata, plan.crf)
            outputs.append({"path": target.media, "tokens": target.tokens, "index": made.index})
    output.data({**plan.provenance, "outputs": outputs}, paths=[entry["path"] for entry in outputs])


def _warn_of_prompt(bundle: "Bundle", wanted: "GenerateOptions") -> None:
    """Warn of what the model can't take of the prompts."""
    from ursa_core.sampling.generate import full_prompt

    negative = wanted.negative or ""
    texts = (("prompt", full_prompt(bundle, wanted)), ("negative prompt", negative))
    for name, text in texts:
        unknown = bundle.text_tokenizer.unknown_words(text)
        if unknown:
            output.warn(f"the model doesn't know these words of the {name}: {', '.join(unknown)}")
        lost = bundle.text_tokenizer.cut(text)
        if lost:
            output.warn(f"the {name} is too long for the model, this is cut off: {lost}")
