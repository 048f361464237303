"""Scores from a process: asked once, restarted when it dies, and never waited for without end."""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ursa_core.errors import RecipeError, UrsaError
from ursa_core.rewards import command
from ursa_core.rewards.command import CommandScorer

HEAD = """
import json, os, sys, time
from pathlib import Path
from PIL import Image
started = Path(sys.argv[1]); started.write_text(started.read_text() + str(os.getpid()) + "\\n")
for line in sys.stdin:
    clip = json.loads(line)
    frames = sorted(Path(clip["frames"]).glob("*.png"))
    score = Image.open(frames[0]).getpixel((0, 0))[0] + len(frames) / 10
"""
ANSWER = """
    print(json.dumps({"id": clip["id"], "score": score}), flush=True)
"""


@pytest.fixture
def scorer(tmp_path):
    """A scorer by the lines between input and answer, and the file of the processes' ids."""
    opened = []

    def make(lines: str = "", answer: str = ANSWER, timeout: float = 30.0):
        (tmp_path / "score.py").write_text(HEAD + lines + answer)
        (tmp_path / "started").write_text("")
        words = [sys.executable, str(tmp_path / "score.py"), str(tmp_path / "started")]
        opened.append(CommandScorer(words, timeout))
        return opened[-1], tmp_path / "started"

    yield make
    for each in opened:
        each.__exit__()


def clips(num: int, frames: int = 2) -> list[np.ndarray]:
    return [np.full((frames, 16, 16, 3), 10 * (k % 20 + 1), np.uint8) for k in range(num)]


def starts(file: Path) -> int:
    return len(file.read_text().split())


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_clips_are_scored_by_one_process(scorer):
    score, started = scorer()
    assert score(clips(3), ["a", "b", "c"]) == [10.2, 20.2, 30.2]
    assert score(clips(1, frames=1), ["d"]) == [10.1]
    (pid,) = map(int, started.read_text().split())
    assert is_alive(pid)
    score.__exit__()
    assert not is_alive(pid)


def test_answers_may_come_in_another_order(scorer):
    answer = """
    waiting = globals().setdefault("waiting", []); waiting.append((clip["id"], score))
    if len(waiting) == 3:
        for number, score in reversed(waiting):
            print(json.dumps({"id": number, "score": score}), flush=True)
"""
    score, _ = scorer(answer=answer)
    assert score(clips(3), ["a", "b", "c"]) == [10.2, 20.2, 30.2]


def test_a_second_answer_is_never_taken_for_another_clip(scorer):
    """It comes after the batch that asked for it, and costs the clip that waits for its own."""
    score, _ = scorer(answer=ANSWER + ANSWER)
    assert score(clips(1), ["a"]) == [10.2]
    (wrong,) = score(clips(1, frames=3), ["b"])
    assert wrong == """it answered '{"id": 0, "score": 10.2}'"""


def test_a_clip_may_have_no_score(scorer):
    lines = """
    if clip["prompt"] == "b":
        print(json.dumps({"id": clip["id"], "error": "no text found"}), flush=True); continue
    if clip["prompt"] == "c":
        score = float("nan")
"""
    score, _ = scorer(lines)
    first, second, third = score(clips(3), ["a", "b", "c"])
    assert (first, second) == (10.2, "no text found")
    assert third != third


def test_a_process_that_dies_is_started_again(scorer):
    """Here after each second clip, so that none of its answers is lost."""
    lines = """
    if clip["id"] == 2 and started.read_text().count("\\n") == 1:
        sys.exit("CUDA out of memory")
"""
    score, started = scorer(lines)
    assert score(clips(4), list("abcd")) == [10.2, 20.2, 30.2, 40.2]
    assert starts(started) == 2


def test_a_clip_that_always_kills_it_is_named(scorer):
    score, started = scorer('\n    if clip["prompt"] == "b": sys.exit("a bad image")\n')
    found = score(clips(3), list("abc"))
    assert (found[0], found[2]) == (10.2, 30.2)
    assert found[1] == "it ended: a bad image"
    assert starts(started) == 3


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ('    if clip["id"] == 1: print("loading…", flush=True)\n', "it answered 'loading…'"),
        ('    if clip["id"] == 1: print("[1]", flush=True)\n', "it answered '[1]'"),
        ('    if clip["id"] == 1: clip["id"] = 7\n', """it answered '{"id": 7, "score": 20.2}'"""),
        ('    if clip["id"] == 1: score = "good"\n', 'it answered \'{"id": 1, "score": "good"}\''),
        ('    if clip["id"] == 1: time.sleep(60)\n', "no answer within 3 seconds"),
    ],
)
def test_nonsense_and_silence_cost_one_clip(scorer, lines, reason):
    score, started = scorer(lines, timeout=3.0)
    before = time.monotonic()
    assert score(clips(3), list("abc")) == [10.2, reason, 30.2]
    assert time.monotonic() - before < 30
    assert starts(started) == 2
    assert not is_alive(int(started.read_text().split()[0]))


def test_a_line_without_an_end_is_no_more_than_a_wrong_answer():
    """And doesn't fill the memory."""
    endless = f"import sys\nwhile True: sys.stdout.write('x' * {command._LONGEST_ANSWER})"
    with CommandScorer([sys.executable, "-c", endless], 30.0) as score:
        found = score(clips(2), ["a", "b"])
        assert found == [f"it answered {'x' * 80!r}"] * 2


def test_last_words_are_of_the_process_that_ended(scorer):
    lines = """
    is_first = started.read_text().count("\\n") == 1
    if clip["id"] == 0: sys.exit("CUDA out of memory" if is_first else 0)
"""
    score, started = scorer(lines)
    assert score(clips(2), ["a", "b"]) == ["it ended without a word", 20.2]
    assert starts(started) == 3


def test_what_only_fails_ends_the_run(scorer):
    score, started = scorer('\n    sys.exit("no model")\n')
    with pytest.raises(
        UrsaError, match="3 times in a row, last at clip 1, 'b': it ended: no model"
    ):
        score(clips(8), list("abcdefgh"))
    assert starts(started) == 3


def test_a_missing_program_is_refused_at_once():
    with pytest.raises(RecipeError, match="no program nowhere"):
        CommandScorer(["nowhere", "x"], 1.0)


DAMAGED = (
    "", "null", "{}", "[]", "1", '"id"', '{"id": 1', '{"id": [1], "score": 1}', '{"id": {}}',
    '{"id": 1, "score": true}', '{"id": 1, "score": "1"}', '{"id": 1, "score": null}',
    '{"id": 1, "error": 5}', "[" * 5000, '{"id": 1, "score": ' + "9" * 5000 + "}", "\x00", "\ud800",
    '{"id": 9, "score": 1}', '{"id": -1, "score": 1}', '{"id": 1, "id": 9, "score": 1}',
)  # fmt: skip


@pytest.mark.parametrize("line", DAMAGED, ids=lambda line: repr(line[:20]))
def test_damaged_answers_are_failures(line):
    with CommandScorer([sys.executable], 1.0) as scorer:
        scorer._answers.put(line + "\n")
        with pytest.raises(command._Failure):
            scorer._next([0, 1])


def test_more_lines_than_a_pipe_holds(scorer):
    """The process answers only after all its input, more than 64 kB of it."""
    answer = """
    waiting = globals().setdefault("waiting", []); waiting.append((clip["id"], score))
    if len(waiting) == 40:
        for number, score in waiting:
            print(json.dumps({"id": number, "score": score}) + " " * 4000, flush=True)
"""
    score, _ = scorer(answer=answer)
    prompts = [json.dumps(k) + "x" * 4000 for k in range(40)]
    assert len(score(clips(40, frames=1), prompts)) == 40
