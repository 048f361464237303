"""`ursa models`: list, show, download, convert and merge models."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ursa_cli.options import shared as options
from ursa_cli.options.shared import Panels, argument, described, output_path
from ursa_cli.terminal import output
from ursa_cli.terminal.help import Command, Group, new_app
from ursa_core import amounts
from ursa_core.errors import CheckpointError, HubError, HubUnreachableError, UsageError
from ursa_core.files import check_folder_of

if TYPE_CHECKING:
    from ursa_core.bundle.settings import BundleSettings
    from ursa_core.bundle.summary import Summary

models = new_app(cls=Group, help="List the models there are; show, get, put, convert or merge one.")
_FLOAT32, _BFLOAT16 = 4, 2  # bytes of a number
_NewFolder = Annotated[Path | None, output_path("FOLDER", "New folder to write.")]
_PULLED = "Name of a shipped model, a model's folder, or the Hugging Face id of a pulled one."
_OPTIONS: Panels = {None: {
    "public": (None, "Let everybody see a new repository."),
    "prompts": (None, "List the subjects that it draws by name, by group."),
    "decoder": ("RUN", "Tokenizer trained with freeze_encoder, whose decoder the model takes."),
    "revision": ("R", "Branch, tag or commit.", "the model's main branch"),
    "to": ("FOLDER", "Folder to download to, a new one or that of a pull before.",
           "the Hugging Face cache"),
    "base": ("M", "Model of the other parts: shipped name, folder or id.", "the checkpoint itself"),
    "stride": ("TxHxW", ("Frames and pixels per code, as in the tokenizer's name; needed where the "
               "weights don't show them."), "the weights'"),
}}  # fmt: skip


@models.command("list", cls=Command)
def list_models(as_json: options.Json = False) -> None:
    """List the models that come with ursa, and those that were pulled.

    Examples:
      ursa models list
      ursa models list --json
    """
    output.configure(as_json=as_json)
    from ursa_core.bundle.folder import URSA_MODEL, shipped_models
    from ursa_core.bundle.hub import pulled_models
    from ursa_core.bundle.summary import summary

    found = {name: summary(folder) for name, folder in shipped_models().items()}
    for name, folder in pulled_models().items():
        try:
            URSA_MODEL.check(folder)
            found[name] = summary(folder)
        except CheckpointError as error:
            output.warn(error.message)
            output.hint(f"ursa models pull {name}")
    rows = []
    for name, s in found.items():
        count = sum(part.parameters for part in s.parts.values())
        parameters, size = f"{count / 1e6:.1f} M", amounts.size(s.file_bytes)
        rows.append((name, parameters, size, s.settings.shape, s.licence))
    header = ("NAME", "PARAMETERS", "SIZE", "SHAPE", "LICENCE")
    payload = {"models": [_payload(name, s) for name, s in found.items()]}
    output.data(payload, lines=output.table(header, rows))


@models.command("show", cls=Command)
@described(_OPTIONS)
def show_model(
    model: Annotated[str, argument("MODEL", _PULLED)],
    prompts: bool = False,
    as_json: options.Json = False,
) -> None:
    """Show a model's sizes, path, grid, defaults, licence and need for memory.

    Examples:
      ursa models show nano
      ursa models show emoji --prompts
    """
    output.configure(as_json=as_json)
    options.require_text("model", model)
    from ursa_core.bundle.bundle import resolve_model
    from ursa_core.bundle.folder import URSA_MODEL
    from ursa_core.bundle.settings import BundleSettings, known_defaults
    from ursa_core.bundle.summary import summary

    try:
        folder = resolve_model(model, may_download=False)
    except HubError as error:
        known = known_defaults(model)
        if known is None:
            raise
        settings, source = BundleSettings(**known[0]), known[1]
        stated = {**asdict(settings), "shift": None}  # which its scheduler says
        payload = {"name": model, "settings": stated, "settings_source": source}
        output.data(payload, lines=_table([("name", model), *_defaults(settings, source)]))
        output.note(error.message)
        output.hint(f"ursa models pull {model}")
        return
    URSA_MODEL.check(folder)
    found = summary(folder)
    if prompts:
        _show_subjects(found)
        return
    output.data(_payload(found.name, found), lines=_description(found))


def _show_subjects(found: "Summary") -> None:
    from ursa_core.bundle.subjects import load_subjects
    from ursa_core.worlds import emoji

    subjects = load_subjects(found.folder)
    if not subjects:
        hint = "its model card says what it knows; leave out --prompts"
        raise UsageError(f"the model {found.name} has no list of subjects", hint)
    groups: dict[str, list[dict[str, str]]] = {subject.group: [] for subject in subjects}
    for subject in sorted(subjects, key=lambda subject: subject.name.casefold()):
        groups[subject.group].append({"name": subject.name, "emoji": subject.emoji})
    prompts = [emoji.caption(subject.name, "teal") for subject in subjects[:3]]
    more = {"backgrounds": [*emoji.BACKGROUNDS], "prompts": prompts}
    named = {name: [f"{s['name']} {s['emoji']}" for s in group] for name, group in groups.items()}
    lists = {**named, **more}.items()
    lines = [output.wrapped(f"{name}: {', '.join(entries)}") for name, entries in lists]
    payload = {"name": found.name, "subjects": groups, **more}
    output.data(payload, lines=chain.from_iterable(lines))


@models.command("pull", cls=Command)
@described(_OPTIONS)
def pull_model(
    model: Annotated[str, argument("ID", "Hugging Face id, owner/name or owner/name@revision.")],
    revision: str | None = None,
    to: str | None = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Get a model from the Hugging Face hub, or bring it up to date; print its folder.

    Only weights, JSON and text are downloaded, never code.
    HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are honoured.

    Examples:
      ursa models pull BAAI/URSA-1.7B-FSQ320
      ursa models pull BAAI/URSA-0.6B-IBQ1024 --to models/ibq
    """
    output.configure(as_json=as_json, quiet=quiet)
    for name, text in (("id", model), ("revision", revision), ("folder", to)):
        options.require_name(name, text)
    from ursa_core.bundle.folder import shipped_models
    from ursa_core.bundle.hub import download, found_here, require_id

    if model in shipped_models():
        hint = f"use it: --model {model}"
        raise UsageError(f"{model} comes with ursa, there is nothing to pull", hint)
    wanted, target = require_id(model, revision), None if to is None else Path(to)
    if target is not None and target.exists():
        if not target.is_dir():
            raise UsageError(f"{target} is no folder", "give a new folder")
        is_pull = (target / ".cache" / "huggingface").is_dir()
        if not is_pull and any(target.iterdir()):
            raise UsageError(f"the folder {target} isn't empty", "give a new folder")
    try:
        folder = download(wanted, target, options.download_progress)
    except HubUnreachableError as error:
        if target is not None or (kept := found_here(wanted)) is None:
            raise
        output.warn(f"{error.cause}: this is the {wanted} from before")
        folder = kept
    output.data({"name": str(wanted), "folder": str(folder)}, paths=[folder])


@models.command("push", cls=Command)
@described(_OPTIONS)
def push_model(
    run: Annotated[Path, argument("RUN", "Folder of a model, a run or an adapter.")],
    model: Annotated[str, argument("ID", "Hugging Face id to give it, owner/name.")],
    public: bool = False,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Upload a model to the Hugging Face hub, private unless it is to be public.

    Checkpoints, metrics and samples stay here; README.md is the model card.
    HF_TOKEN and HF_ENDPOINT are honoured.

    Examples:
      ursa models push runs/mine me/mine
      ursa models push runs/mine me/mine --public
    """
    output.configure(as_json=as_json, quiet=quiet)
    from ursa_core.bundle.adapters import is_adapter
    from ursa_core.bundle.folder import URSA_MODEL
    from ursa_core.bundle.hub import require_id, upload
    from ursa_core.bundle.summary import licence_of

    patterns: tuple[str, ...] = ("adapter_*", "ursa_adapter.json", "README.md", "LICENSE*")
    wanted = require_id(model)
    if wanted.revision:
        raise UsageError(f"{model}: an upload is the newest commit", f"give {wanted.name}")
    if not run.is_dir():
        raise CheckpointError(f"there is no folder {run}", "give that of a model or a run")
    if not is_adapter(run):
        if (run / "vae").exists() and not (run / "transformer").exists():
            what = f"{run} is a tokenizer, which goes to the hub as a part of a model"
            raise CheckpointError(what, "push a generator that is trained on it")
        URSA_MODEL.check(run)
        patterns = URSA_MODEL.patterns
    if licence_of(run) == "not stated":
        hint = "give `licence` in its ursa.json, or train with licence=…, also afterwards"
        output.warn(f"the model states no licence: {hint}")
    address = upload(run, wanted, patterns, public=public, force=force)
    output.data({"name": str(wanted), "address": address}, lines=[address], paths=[address])


@models.command("convert", cls=Command)
@described(_OPTIONS)
def convert_model(
    source: Annotated[
        Path,
        argument(
            "FILE|FOLDER",
            "A checkpoint of a network, or its .bin or .safetensors; or NVIDIA's model.pt.",
        ),
    ],
    out: _NewFolder = None,
    base: str | None = None,
    stride: str | None = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a model folder from an official fine-tune, or from NVIDIA's Cosmos DV tokenizer.

    Of a fine-tune the other parts are those of --base. NVIDIA's becomes a tokenizer
    alone, for `ursa tokenize`, `ursa calibrate-path` and training. Only tensors are read
    from the files; no code in them is run.

    Examples:
      ursa models convert checkpoint-5000 --base BAAI/URSA-1.7B-FSQ320 -o mine
      ursa models convert Cosmos-Tokenize1-DV4x8x8-360p -o cosmos
    """
    output.configure(as_json=as_json, quiet=quiet)
    out = _required(out)
    strides = None if stride is None else options.parse_strides(stride)
    from ursa_core.convert.checkpoint import convert_checkpoint, is_checkpoint

    if base is not None or is_checkpoint(source):
        convert_checkpoint(source, out, None if base is None else options.model_folder(base))
        output.data({"output": str(out), "base": base}, paths=[out])
        return
    from ursa_core.convert.cosmos import convert_cosmos

    config = convert_cosmos(source, out, strides)
    sizes = {n: getattr(config, n) for n in ("temporal_stride", "spatial_stride", "patch_size")}
    about = {**sizes, "num_codes": math.prod(config.levels), "causal": config.causal}
    output.data({"output": str(out), **about}, paths=[out])


@models.command("merge", cls=Command)
@described(_OPTIONS)
def merge_model(
    model: Annotated[
        str, argument("MODEL", "Name of a shipped model, a model's folder, or a Hugging Face id.")
    ],
    lora: options.Lora = None,
    decoder: Path | None = None,
    out: _NewFolder = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a model of its own from a model, and LoRA adapters or a new decoder of it.

    The folder is a whole model for --model and for training, which needs
    the parts no longer; merged.json in it records what it was made of.

    Examples:
      ursa models merge nano --lora runs/nano_lora:0.5 --lora other -o both
      ursa models merge nano --decoder runs/nano_decoder -o sharper
    """
    output.configure(as_json=as_json, quiet=quiet)
    options.require_text("model", model)
    from ursa_core.bundle.adapters import merge_adapters
    from ursa_core.clips.plan import read_adapters

    if not lora and decoder is None:
        raise UsageError("no adapter is given", "add --lora FOLDER, or --decoder RUN")
    out = _required(out)
    folder = options.model_folder(model)
    adapters = read_adapters(lora or [], folder)
    merge_adapters(folder, adapters, out, decoder)
    output.data({"output": str(out), "lora": [a.provenance for a in adapters]}, paths=[out])


def _required(out: Path | None) -> Path:
    if out is None:
        raise UsageError("no output is given", "add -o FOLDER")
    check_folder_of(out)
    return out


def _description(found: "Summary") -> list[str]:
    settings, config = found.settings, found.transformer
    path = found.path.kind
    if found.path.alpha is not None:
        path += f", alpha {found.path.alpha:g}, c {found.path.c or 0:g}"
    stored = settings.times
    times = f"times of {len(stored) - 1} steps" if stored else f"shift {settings.shift:g}"
    sizes = {part: amounts.size(size.file_bytes) for part, size in found.parts.items()}
    for part, size in found.parts.items():
        if size.parameters:
            sizes[part] += f", {size.parameters / 1e6:.2f} M parameters"
    full, half = (found.memory(num_bytes).total for num_bytes in (_FLOAT32, _BFLOAT16))
    least = found.memory(_BFLOAT16, device="cuda", offload=True).total
    blocks = found.memory(_BFLOAT16, device="cuda", offload_blocks=2).total
    rows = [
        ("name", found.name),
        ("folder", found.folder),
        ("size", amounts.size(found.file_bytes)),
        *sizes.items(),
        ("layers", f"{config.num_hidden_layers} of width {config.hidden_size}"),
        ("codes", found.tokenizer.num_vq_embeddings),
        ("stride", f"{found.strides.temporal} in time, {found.strides.spatial} in space"),
        ("path", f"{path}, {times}"),
        ("prompt", f"at most {settings.max_prompt_length} ids"),
        ("latent grid", f"{found.grid}, {found.grid.num_codes} codes"),
        *_defaults(settings, found.source),
        ("memory", f"about {amounts.size(full)} in float32, {amounts.size(half)} in bfloat16"),
        ("", f"{amounts.size(least)} on a GPU in bfloat16 with --offload"),
        ("", f"{amounts.size(blocks)} with --offload-blocks 2"),
        ("licence", found.licence),
    ]
    return _table(rows)


def _defaults(settings: "BundleSettings", source: str) -> list[tuple[str, Any]]:
    low, high = settings.guidance_interval
    later = "" if settings.extend_motion is None else f", {settings.extend_motion:g} in ursa extend"
    return [
        ("default shape", f"{settings.shape} at {settings.fps:g} fps"),
        ("steps", f"{settings.steps}, correct {settings.correct:g}"),
        ("guidance", f"{settings.guidance:g} while {low:g} <= t < {high:g}"),
        ("negative", settings.negative or "(none)"),
        *([("motion", f"{settings.motion:g}{later}")] if settings.motion_prefix else []),
        ("defaults by", source or "a guess: what published models of its kind have"),
    ]


def _table(rows: "Sequence[tuple[str, Any]]") -> list[str]:
    return [f"{name:<17}{value}" for name, value in rows]


def _payload(name: str, found: "Summary") -> dict[str, Any]:
    memory = found.memory(_FLOAT32)
    return {
        "name": name,
        "folder": str(found.folder),
        "file_bytes": found.file_bytes,
        "transformer_parameters": found.parts["transformer"].parameters,
        "tokenizer_parameters": found.parts["vae"].parameters,
        "parts": {part: asdict(size) for part, size in found.parts.items()},
        "num_codes": found.tokenizer.num_vq_embeddings,
        "temporal_stride": found.strides.temporal,
        "spatial_stride": found.strides.spatial,
        "path": found.path.kind,
        "alpha": found.path.alpha,
        "c": found.path.c,
        "shift": found.settings.shift,
        "temperature": found.settings.temperature,
        "grid": [found.grid.frames, found.grid.rows, found.grid.columns],
        "licence": found.licence,
        "memory_bytes": memory.total,
        "memory": memory.to_json(),
        "settings": asdict(found.settings),
        "settings_source": found.source or "guessed",
    }
