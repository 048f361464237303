"""What tests of several commands share: a process that forks others, for runs that are stopped."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

DRIVER = Path(__file__).parents[1] / "stand_ins" / "stopped_runs.py"
Run = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture(scope="session")
def run_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs a command in a folder, stopped at a change of it: what came of it, what it printed."""
    log = tmp_path_factory.mktemp("log") / "log"
    unset = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    with subprocess.Popen(
        [sys.executable, str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={name: value for name, value in os.environ.items() if name not in unset},
    ) as server:  # fmt: skip
        assert server.stdin is not None
        assert server.stdout is not None
        lines, answers = server.stdin, server.stdout

        def call(
            arguments: list[str], folder: Path, stop_at: int = -1, number: int = signal.SIGKILL
        ) -> tuple[dict[str, Any], str]:
            request = {
                "arguments": arguments, "folder": str(folder), "log": str(log),
                "stop_at": stop_at, "signal": number,
            }  # fmt: skip
            lines.write(json.dumps(request) + "\n")
            lines.flush()
            return json.loads(answers.readline()), log.read_text()

        yield call
        lines.close()
