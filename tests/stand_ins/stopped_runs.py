"""Runs commands, each in a process of its own that is stopped at a change of its folder.

Reads requests from stdin, a line of JSON each: {arguments, folder, log, stop_at, signal}. The
command runs in ``folder``; just before the change number ``stop_at`` that it makes there it gets
``signal``. Answers {code, changes}: ``changes`` counts those of a run that came to its end. What
it printed is in ``log``.

Forked, because importing torch takes longer than all the rest; this process computes nothing
itself, as threads of it would be missing in the others.
"""

import importlib
import json
import os
import pkgutil
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import ursa_cli
import ursa_core
from ursa_cli.__main__ import run

CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir"}
MODULES = ("matplotlib.backends.backend_agg", "pyarrow.parquet", "pydantic.dataclasses",
           "scipy.signal", "torchmetrics", "torch.distributed.checkpoint", "torch.optim",
           "transformers", "typer._adapters")  # fmt: skip


def load() -> None:
    """Import what commands import."""
    own = [
        each.name
        for package in (ursa_cli, ursa_core)
        for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    for name in (*MODULES, *own):
        if not name.endswith("__main__"):
            importlib.import_module(name)
    Image.init()
    with torch.device("meta"):
        torch.nn.init.normal_(torch.empty(1))


def main() -> None:
    load()
    for line in sys.stdin:
        request = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            _run(request, writer)
        os.close(writer)
        with os.fdopen(reader) as told:
            changes = told.read()
        _, status = os.waitpid(child, 0)
        answer = {"code": os.waitstatus_to_exitcode(status), "changes": changes and int(changes)}
        print(json.dumps(answer), flush=True)


def _run(request: dict[str, Any], writer: int) -> None:
    folder, stop_at = request["folder"], request["stop_at"]
    with Path(request["log"]).open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.chdir(folder)
    changes = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal changes
        if event not in CHANGES:
            return
        path = os.fsdecode(arguments[0])
        if path.startswith("/") and not path.startswith(folder):
            return
        if changes == stop_at:
            changes += 1
            signal.raise_signal(request["signal"])
        changes += 1

    sys.argv[1:] = request["arguments"]
    code = 1
    sys.addaudithook(watch)
    try:
        run()
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(writer, str(changes).encode())
        os._exit(code)


if __name__ == "__main__":
    main()
