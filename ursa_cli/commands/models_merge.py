"""`ursa models merge`: a model of its own from a model and LoRA adapters."""

from pathlib import Path
from typing import Annotated

import typer

from ursa_cli.options import shared as options
from ursa_cli.terminal import output


def merge_model(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Name of a shipped model, a model's folder, or a Hugging Face id.",
        ),
    ],
    lora: options.Lora = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            parser=options.new_path,
            metavar="FOLDER",
            help="New folder to write.",
            show_default=False,
        ),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a model of its own from a model and LoRA adapters of it.

    The folder is a whole model for --model and for training, which needs
    the adapters no longer; merged.json in it tells what it was made of.

    Examples:
      ursa models merge nano --lora runs/nano_lora -o mine

      ursa models merge nano --lora runs/nano_lora:0.5 --lora other -o both
    """
    output.configure(as_json=as_json, quiet=quiet)
    options.require_text("model", model)
    from ursa_core.bundle.adapters import merge_adapters
    from ursa_core.errors import UsageError
    from ursa_core.media import check_folder_of

    if not lora:
        raise UsageError("no adapter is given", "add --lora FOLDER")
    if out is None:
        raise UsageError("no output is given", "add -o FOLDER")
    check_folder_of(out)
    folder = options.model_folder(model)
    adapters = options.read_adapters(lora, folder)
    merge_adapters(folder, adapters, out)
    payload = {"output": str(out), "lora": [adapter.provenance for adapter in adapters]}
    output.data(payload, paths=[out])
