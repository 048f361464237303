"""Batches and tokens under a real torchrun: the ranks share them out, and nothing else changes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ursa_cli.main import main
from ursa_core.media import write_media
from ursa_core.tokens.shards import read_shards, shard_paths
from ursa_core.worlds.shapes import training_clip

COMMANDS = """
import json, sys
from ursa_cli.main import main
sys.exit(max(main(words) for words in json.loads(sys.argv[1])))
"""


def test_ranks_share_a_batch_and_tokens_out(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, images = tmp_path / "prompts.txt", tmp_path / "images"
    source.write_text("a red circle\na blue square\na green star\n")
    images.mkdir()
    for k in range(9):
        write_media(images / f"{k}.png", training_clip(0, k, "all", 1, 16, 16)[0], 8.0)
    fixed = ["--model", str(tiny_model), "--device", "cpu", "--quiet", "-o"]
    sample = ["sample", "--from-file", str(source), "--steps", "2", "--seed", "3", *fixed]
    shards, alone, shared = (tmp_path / name for name in ("shards", "alone", "shared"))
    tokenize = ["tokenize", str(images), "--frames", "1", *fixed, str(shards)]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    both = json.dumps([[*sample, str(shared)], tokenize])
    done = subprocess.run(
        [sys.executable, *launch, "--no-python", sys.executable, "-c", COMMANDS, both],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sum(".mp4" in line for line in done.stdout.splitlines()) == 3
    assert main([*sample, str(alone)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    videos = [
        {path.name: path.read_bytes() for path in out.glob("*.mp4")} for out in (alone, shared)
    ]
    assert len(videos[0]) == 3
    assert videos[1] == videos[0]
    parts = {path.name for path in shared.glob("manifest-*.jsonl")}
    assert parts == {"manifest-1-of-2.jsonl", "manifest-2-of-2.jsonl"}
    table = read_shards(shards)
    assert len(shard_paths(shards)) == 2
    sources = [table.source(k) for k in range(len(table))]
    assert sorted(sources) == [f"images/{k}.png" for k in range(9)]
