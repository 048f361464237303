"""What a million items cost: time and memory of planning, of going on, and of the first item.

    python benchmarks/cluster.py plan [--num 1000000]
    python benchmarks/cluster.py resume [--num 1000000 --done 900000]
    python benchmarks/cluster.py tokenize [--num 100000]
    python benchmarks/cluster.py ray [--num 200]
    python benchmarks/cluster.py kills [--num 200 --every 20]
    python benchmarks/cluster.py s3 [--num 60]

The first three state wall-clock seconds, seconds of the CPU, and the peak of memory of one process.
"""

import argparse
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

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


@contextmanager
def ray_nodes(num: int, cpus: int) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Address of a Ray cluster of raylets on this machine, and their processes."""
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    common = ["--node-ip-address=127.0.0.1", f"--num-cpus={cpus}", "--block",
              "--object-store-memory=100000000"]  # fmt: skip
    head = ["--head", f"--port={address.rpartition(':')[2]}", "--include-dashboard=false"]
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        for node in range(num):
            role = head if node == 0 else [f"--address={address}"]
            command = [sys.executable, "-m", "ray.scripts.scripts", "start", *role, *common]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            nodes.append(subprocess.Popen(command, **quiet))
            time.sleep(20)  # also until it has registered
        yield address, nodes
    finally:
        for process in nodes:
            process.terminate()
            process.wait()


def records(out: Path) -> list[dict[str, Any]]:
    """What the manifests of a folder say is done, by time."""
    lines = [line for path in out.glob("manifest*.jsonl") for line in path.open()]
    rows = [json.loads(line) for line in lines if '"status": "done"' in line]
    return sorted(rows, key=lambda row: row["time"])


def rate(out: Path) -> float:
    """Items a second after the first tenth, so that no start counts."""
    times = [row["time"] for row in records(out)]
    first = len(times) // 10
    return (len(times) - 1 - first) / (times[-1] - times[first])


def begun(prompts: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    """A run of a list by a process of one thread, which is started."""
    asked = ["--from-file", str(prompts), "-o", str(out), "--seed", "0", "--dtype", "float32"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*URSA, *SAMPLE, *asked, *more, "--quiet"]
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)


def ray(folder: Path, num: int) -> None:
    """The row of two actors beside two shards, first the one, then the other."""
    prompts = write_list(folder / "prompts.txt", num)
    shards = [begun(prompts, folder / "shards", "--shard", f"{k}/2") for k in (1, 2)]
    if any(process.wait() for process in shards):
        sys.exit("the shards failed")
    with ray_nodes(1, 2) as (address, _):
        if begun(prompts, folder / "ray", "--ray", address, "--ray-cpus", "1").wait():
            sys.exit("Ray failed")
    rates = rate(folder / "ray"), rate(folder / "shards")
    print(f"{num} items: two actors {rates[0]:.3f} items/s, two shards {rates[1]:.3f} items/s,"
          f" ratio {rates[0] / rates[1]:.3f}", flush=True)  # fmt: skip


def processes(start: bytes) -> dict[int, int]:
    """Ids of processes whose command begins so, and of their parents."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().startswith(start):
                stat = path.with_name("stat").read_text().rpartition(")")[2].split()
                found[int(path.parent.name)] = int(stat[1])
    return found


def kills(folder: Path, num: int, seconds: float) -> None:
    """The row of killed actors and a killed node, beside one process."""
    prompts = write_list(folder / "prompts.txt", num)
    if begun(prompts, folder / "one").wait():
        sys.exit("one process failed")
    out, num_killed, is_whole = folder / "ray", 0, True
    with ray_nodes(2, 1) as (address, nodes):
        run = begun(prompts, out, "--ray", address, "--ray-cpus", "1")
        start = last = time.monotonic()
        while run.poll() is None:
            time.sleep(0.2)
            if time.monotonic() - last > seconds and (workers := processes(b"ray::_Worker")):
                os.kill(next(iter(workers)), signal.SIGKILL)
                num_killed, last = num_killed + 1, time.monotonic()
            if is_whole and len(records(out)) >= num // 2:
                for pid, parent in processes(b"").items():
                    if parent == nodes[1].pid:
                        os.kill(pid, signal.SIGKILL)
                nodes[1].kill()
                is_whole = False
    made = {path.name: path.read_bytes() for path in (folder / "one").glob("*.mp4")}
    same = sum((out / name).exists() and (out / name).read_bytes() == made[name] for name in made)
    print(f"{num} items, {num_killed} actors and {0 if is_whole else 1} node killed: exit code"
          f" {run.returncode}, {same} of {len(made)} with the bytes of one process, after"
          f" {time.monotonic() - start:.0f} s", flush=True)  # fmt: skip


def s3(folder: Path, num: int) -> None:
    """The row of training from a bucket beside the same shards on disk, ``num`` steps, in turns."""
    shards, env = folder / "shards", dict(os.environ)
    drawn = ["tokenize", "shapes:train", "--num", "2000", "--check", "0", "--model", "nano"]
    subprocess.run([*URSA, *drawn, "-o", str(shards), "--quiet"], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}  # fmt: skip
    os.environ |= env
    import s3fs

    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    rates: dict[str, list[float]] = {"disk": [], "bucket": []}
    with subprocess.Popen(command, **quiet) as server:
        time.sleep(10)
        bucket = s3fs.S3FileSystem()
        bucket.mkdir("films")
        bucket.put(str(shards), "films/shards", recursive=True)
        for turn in range(3):
            for where, data in (("disk", str(shards)), ("bucket", "s3://films/shards")):
                run = folder / f"{where}{turn}"
                recipe = ["recipes/nano.yaml", "tokenizer=nano", f"data.shards={data}"]
                own = [f"train.steps={num}", "train.log_every=1", "optimizer.warmup_steps=1",
                       "samples.prompts=[]", "data.validation_shards=null"]  # fmt: skip
                asked = [*URSA, "train", *recipe, *own, "-o", str(run), "--quiet"]
                home = {"URSA_HOME": str(run) + "-home"}  # so that nothing is fetched before
                subprocess.run(asked, env=env | home, check=True)
                rows = map(json.loads, (run / "metrics.jsonl").open())
                at = {row["step"]: row["seconds"] for row in rows if "loss" in row}
                rates[where].append((num - 10) / (at[num] - at[10]))
        server.kill()
    means = {where: sum(found) / len(found) for where, found in rates.items()}
    both, ratio = list(means.values()), means["bucket"] / means["disk"]
    print(f"{num} steps: {both[1]:.3f} steps/s from a bucket, {both[0]:.3f} from disk,"
          f" ratio {ratio:.3f}; {rates}", flush=True)  # fmt: skip


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("row", choices=("plan", "resume", "tokenize", "ray", "kills", "s3"))
    parser.add_argument("--num", type=int, help="a million items, 100,000 files, 200 clips")
    parser.add_argument("--every", type=float, default=20, help="seconds from kill to kill")
    parser.add_argument("--done", type=int, default=900_000)
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends what it has started
    with tempfile.TemporaryDirectory() as name:
        match chosen.row:
            case "plan":
                plan(Path(name), chosen.num or 1_000_000)
            case "resume":
                num = chosen.num or 1_000_000
                resume(Path(name), num, min(chosen.done, num))
            case "tokenize":
                tokenize(Path(name), chosen.num or 100_000)
            case "ray":
                ray(Path(name), chosen.num or 200)
            case "kills":
                kills(Path(name), chosen.num or 200, chosen.every)
            case "s3":
                s3(Path(name), chosen.num or 60)


if __name__ == "__main__":
    main()
