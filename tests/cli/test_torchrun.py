"""A batch under a real torchrun: the ranks share it out, and nothing else changes."""

import subprocess
import sys
from pathlib import Path


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
