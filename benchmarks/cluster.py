"""What a million items cost: time and memory of planning, of going on, and of the first item.

    python benchmarks/cluster.py plan [--num 1000000]
    python benchmarks/cluster.py resume [--num 1000000 --done 900000]
    python benchmarks/cluster.py tokenize [--num 100000]

Each line states wall-clock seconds, seconds of the CPU, and the peak of memory of one process.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = [
    "a",
    "fox",
    "on",
    "a",
    "purple",
    "background",
    "red",
    "circle",
    "big",
    "small",
    "dog",
    "moves",
    "left",
    "slowly",
    "blue",
    "house",
]
URSA = [sys.executable, "-m", "ursa_cli"]
SAMPLE = ["sample", "--model", "nano", "--device", "cpu"]


def write_list(path: Path, num: int) -> Path:
    """Write ``num`` prompts of eight words."""
    draws = random.Random(0)
    with path.open("w") as file:
        file.writelines(" ".join(draws.choices(WORDS, k=8)) + "\n" for _ in range(num))
    return path


def measured(what: str, *arguments: object) -> None:
    """Run a command of ursa and print its time and memory; stop if it fails."""
    begun = time.monotonic()
    process = subprocess.Popen([*URSA, *map(str, arguments)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{what} failed: {process.returncode}")
    seconds, cpu = time.monotonic() - begun, usage.ru_utime + usage.ru_stime
    print(
        f"{what}: {seconds:.1f} s, {cpu:.1f} s of CPU, {usage.ru_maxrss / 1e3:.0f} MB", flush=True
    )


def first_item(prompts: Path, out: Path, what: str) -> None:
    """Print the seconds until a run begins its first item."""
    begun = time.monotonic()
    process = subprocess.Popen(
        [*URSA, *SAMPLE, "--from-file", str(prompts), "-o", str(out)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    manifest, size = out / "manifest.jsonl", None
    while process.poll() is None:
        lines = manifest.read_bytes().count(b"\n") if size is None and manifest.exists() else 0
        if lines > 1:
            break
        time.sleep(0.05)
    print(f"{what}: the first item begins after {time.monotonic() - begun:.1f} s", flush=True)
    process.kill()
    process.wait()


def plan(folder: Path, num: int) -> None:
    """The row of planning."""
    prompts = write_list(folder / "prompts.txt", num)
    asked = ("--from-file", prompts, "-o", folder / "out", "--dry-run", "--quiet")
    measured(f"planning of {num}", *SAMPLE, *asked)
    first_item(prompts, folder / "out", f"of {num}")


def resume(folder: Path, num: int, done: int) -> None:
    """The row of going on, whose finished items are files of one byte."""
    prompts, out = write_list(folder / "prompts.txt", num), folder / "out"
    first = folder / "first.txt"
    first.write_text(prompts.open().readline())
    asked = [*SAMPLE, "--seed", "0", "-o", str(out)]
    subprocess.run([*URSA, *asked, "--from-file", first, "--quiet"], check=True)
    header, _, line = (out / "manifest.jsonl").read_text().splitlines()
    names = folder / "names.txt"
    with names.open("w") as file:
        planning = [*URSA, *asked, "--from-file", prompts, "--dry-run", "--quiet", "--force"]
        subprocess.run(planning, stdout=file, check=True)
    record = json.loads(line)
    from ursa_core.seeding import stream_seed

    with (out / "manifest.jsonl").open("w") as file, names.open() as made, prompts.open() as texts:
        file.write(header + "\n" + line + "\n")
        next(texts)
        for index, (path, text) in enumerate(zip(made, texts, strict=True), start=1):
            if index >= done:
                break
            output = Path(path.strip())
            record |= {"item": f"item {index}", "name": output.name}
            record["seed"] = stream_seed(0, record["item"])
            record["options"] |= {"prompt": text.strip(), "seed": record["seed"]}
            for status in ("started", "done"):
                file.write(json.dumps(record | {"status": status}, ensure_ascii=False) + "\n")
            output.write_bytes(b"1")
    measured(
        f"going on with {num}, {done} of them done", *asked, "--from-file", prompts, "--dry-run",
        "--quiet",
    )  # fmt: skip


def tokenize(folder: Path, num: int) -> None:
    """The row of tokens: links of one image in folders of a thousand, all of them in shards."""
    from PIL import Image

    from ursa_core.encoding.encode import encode_clips, token_identity
    from ursa_core.encoding.items import find_items
    from ursa_core.encoding.options import TokenizeOptions
    from ursa_core.encoding.origins import origin_of
    from ursa_core.encoding.run import load_encoder
    from ursa_core.tokens.writer import ShardWriter, TokenRow

    media, out = folder / "media", folder / "shards"
    for begin in range(0, num, 1000):
        first = media / f"{begin:07d}" / f"{begin:07d}.png"
        first.parent.mkdir(parents=True)
        Image.new("RGB", (64, 64), "navy").save(first)
        for index in range(begin + 1, min(begin + 1000, num)):
            first.with_name(f"{index:07d}.png").hardlink_to(first)
    encoder = load_encoder("nano", TokenizeOptions(), "cpu")
    cut, identity = encoder.cut, token_identity(encoder.tokenizer, encoder.digest)
    items = find_items([str(media)], 1, 0, cut.fps)
    clip = next(items[0].clips(cut, encoder.tokenizer.strides.temporal))
    (codes,) = encode_clips(encoder.tokenizer, [clip.frames])
    with ShardWriter(out, identity, cut.to_json()) as writer:
        for item in items:
            origin = origin_of(item, out)
            writer.add(TokenRow(codes, clip.captions, cut.fps, clip.motion, item.name, origin))
    asked = (media, "-o", out, "--model", "nano", "--device", "cpu")
    measured(f"listing of {num} files, all of them done", "tokenize", *asked, "--quiet")


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("row", choices=("plan", "resume", "tokenize"))
    parser.add_argument("--num", type=int, help="a million items, 100,000 files")
    parser.add_argument("--done", type=int, default=900_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        match chosen.row:
            case "plan":
                plan(Path(name), chosen.num or 1_000_000)
            case "resume":
                num = chosen.num or 1_000_000
                resume(Path(name), num, min(chosen.done, num))
            case "tokenize":
                tokenize(Path(name), chosen.num or 100_000)


if __name__ == "__main__":
    main()
