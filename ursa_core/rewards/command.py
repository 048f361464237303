"""A score from a process of the user's, by JSON lines: clips in, scores out.

It is started once and gets a line per clip, ``{"id": 0, "prompt": "…", "frames": "FOLDER"}``, where
FOLDER holds the frames as PNG files in their order. In any order it answers ``{"id": 0, "score":
0.5}``, or ``{"id": 0, "error": "…"}`` where a clip has no score, and it ends with its input.
"""

import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO, Any

from ursa_core.errors import RecipeError, UrsaError
from ursa_core.files import parse_json
from ursa_core.media import Frames, write_media

Lines = queue.Queue[str | None]
"""What goes to the process, or comes from it; None is the end."""
MOST_IN_A_ROW = 3  # failures without an answer between them
_GOODBYE_SECONDS = 5.0
_LONGEST_ANSWER = 1 << 16  # characters; a longer line is several answers, all of them wrong


class _Failure(Exception):  # noqa: N818
    """Why the process gave no answer, and whether to ask once more."""

    def __init__(self, reason: str, *, again: bool = False) -> None:
        super().__init__(reason)
        self.again = again


class CommandScorer(AbstractContextManager["CommandScorer", None]):
    """Scores of clips by a command, which is started again after it died, hung or said nonsense."""

    def __init__(self, command: Sequence[str], timeout: float) -> None:
        if shutil.which(command[0]) is None:
            hint = "give its path, and what follows it as a list: [python, score.py]"
            raise RecipeError(f"command: there is no program {command[0]}", hint)
        self.command, self.timeout = list(command), timeout
        self._process: subprocess.Popen[str] | None = None
        self._texts, self._answers = Lines(), Lines()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._failures = self._asked = 0

    def __exit__(self, *_: object) -> None:
        self._end(_GOODBYE_SECONDS)
        self._log.close()

    def __call__(self, clips: Sequence[Frames], prompts: Sequence[str]) -> list[float | str]:
        """Score of each clip, or why it has none; `UrsaError` after several failures in a row."""
        found: dict[int, float | str] = {}
        retried = set[int]()
        base, self._asked = self._asked, self._asked + len(clips)  # no id twice, as answers may be
        with tempfile.TemporaryDirectory(prefix="ursa-reward-") as folder:
            asked = []
            for k, (clip, prompt) in enumerate(zip(clips, prompts, strict=True)):
                write_media(frames := Path(folder) / str(k), clip, 1.0)
                asked.append(json.dumps({"id": base + k, "prompt": prompt, "frames": str(frames)}))
            while todo := [k for k in range(len(clips)) if k not in found]:
                try:
                    if self._process is None:
                        self._start()
                    self._texts.put("".join(f"{asked[k]}\n" for k in todo))
                    for _ in todo:
                        number, score = self._next([base + k for k in todo if k not in found])
                        found[number - base], self._failures = score, 0
                except _Failure as failure:
                    self._end()
                    self._failures += 1
                    first = next(k for k in todo if k not in found)
                    if self._failures >= MOST_IN_A_ROW:
                        name = " ".join(self.command)
                        raise UrsaError(
                            f"{name} failed {MOST_IN_A_ROW} times in a row, last at clip {first},"
                            f" {prompts[first]!r}: {failure}",
                            "run it by hand with a line as docs/rewards.md shows it",
                        ) from failure
                    if failure.again and first not in retried:
                        retried.add(first)
                    else:
                        found[first] = str(failure)
        return [found[number] for number in range(len(clips))]

    def _start(self) -> None:
        self._log_start = self._log.seek(0, os.SEEK_END)
        try:
            process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
                encoding="utf-8", errors="replace", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise _Failure(f"it can't be started: {error.strerror}") from error
        self._process, self._texts, self._answers = process, Lines(), Lines()
        threading.Thread(target=_write, args=(process.stdin, self._texts), daemon=True).start()
        threading.Thread(target=_read, args=(process.stdout, self._answers), daemon=True).start()

    def _next(self, open_ids: list[int]) -> tuple[int, float | str]:
        """The next answer: the number of its clip, and its score or error."""
        try:
            line = self._answers.get(timeout=self.timeout)
        except queue.Empty:
            raise _Failure(f"no answer within {self.timeout:g} seconds") from None
        if line is None:
            raise _Failure(f"it ended{self._last_words()}", again=True)
        answer: Any = None
        with suppress(ValueError):
            answer = parse_json(line, finite=False)
        if isinstance(answer, dict) and answer.get("id") in open_ids:
            score, error = answer.get("score"), answer.get("error")
            if isinstance(score, int | float) and not isinstance(score, bool):
                return answer["id"], float(score)
            if isinstance(error, str):
                return answer["id"], error
        raise _Failure(f"it answered {line[:80].rstrip()!r}")

    def _last_words(self) -> str:
        self._log.seek(max(self._log_start, self._log.seek(0, os.SEEK_END) - 2000))
        lines = self._log.read().decode(errors="replace").split("\n")
        told = [line for line in lines if line.strip()]
        return f": {told[-1].strip()}" if told else " without a word"

    def _end(self, patience: float = 0.0) -> None:
        if (process := self._process) is None:
            return
        self._process = None
        self._texts.put(None)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        with suppress(OSError):  # also what it has started
            os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()
        process.wait()


def _write(stream: IO[str], texts: Lines) -> None:
    with suppress(OSError, ValueError), stream:  # it has ended, which its answers show
        for text in iter(texts.get, None):
            stream.write(text)
            stream.flush()


def _read(stream: IO[str], answers: Lines) -> None:
    with stream, suppress(ValueError):
        for line in iter(lambda: stream.readline(_LONGEST_ANSWER), ""):
            answers.put(line)
    answers.put(None)
