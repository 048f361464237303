"""Batches and tokens under a real torchrun: the ranks share them out, and nothing else changes."""

import subprocess
import sys
from pathlib import Path

from ursa_core.media import write_media
from ursa_core.tokens.shards import read_shards, shard_paths
from ursa_core.worlds.shapes import training_clip


def test_ranks_share_a_batch_out(tmp_path: Path, tiny_model: Path) -> None:
    source = tmp_path / "prompts.txt"
    source.write_text("a red circle\na blue square\na green star\n")
    fixed = ["--model", str(tiny_model), "--steps", "2", "--seed", "3", "--device", "cpu"]
    ursa = ["-m", "ursa_cli", "sample", "--from-file", str(source), "--quiet", *fixed]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ranks = [*launch, "--no-python", sys.executable, *ursa]
    for out, words in (("shared", ranks), ("alone", ursa)):
        command = [sys.executable, *words, "-o", str(tmp_path / out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 3
    videos = {
        out: {path.name: path.read_bytes() for path in (tmp_path / out).glob("*.mp4")}
        for out in ("shared", "alone")
    }
    assert len(videos["alone"]) == 3
    assert videos["shared"] == videos["alone"]
    parts = {path.name for path in (tmp_path / "shared").glob("manifest-*.jsonl")}
    assert parts == {"manifest-1-of-2.jsonl", "manifest-2-of-2.jsonl"}


def test_ranks_share_tokens_out(tmp_path: Path, tiny_model: Path) -> None:
    for k in range(9):
        write_media(tmp_path / f"{k}.png", training_clip(0, k, "all", 1, 16, 16)[0], 8.0)
    fixed = [str(tmp_path), "--frames", "1", "--model", str(tiny_model), "--device", "cpu"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    out = tmp_path / "shards"
    command = [*launch, "--no-python", sys.executable, "-m", "ursa_cli", "tokenize", *fixed]
    done = subprocess.run(
        [sys.executable, *command, "-o", str(out), "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    table = read_shards(out)
    assert len(shard_paths(out)) == 2
    sources = [table.source(k) for k in range(len(table))]
    assert sorted(sources) == [f"{tmp_path.name}/{k}.png" for k in range(9)]
