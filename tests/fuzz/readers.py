"""The readers that are fuzzed, one table: how each is called, from what, and changed how."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from tests.fuzz import mutators

ROOT = Path(__file__).parents[2]
Mutate = Callable[[Random, bytes], bytes]


@dataclass(frozen=True)
class Reader:
    """One reader of files.

    Attributes:
        name: As ``make fuzz READERS=…`` takes it.
        seeds: Whole inputs by file name inside a folder of their own.
        mutate: Change of an input; of several seeds one is changed at a time.
        read: Reads the folder with the changed file of a name.
        modules: Files whose lines are counted as covered.
        plant: Function that a planted fault sits in, as ``module:name``.
        plant_if: Whether that fault shows, of the function's arguments.
        slower: How many times fewer cases it gets.
        beside: Files that stand beside the seeds and stay as they are.
    """

    name: str
    seeds: Mapping[str, bytes]
    mutate: Mutate
    read: Callable[[Path, str], object]
    modules: tuple[str, ...]
    plant: str
    plant_if: Callable[..., bool] = lambda *_, **__: True
    slower: int = 1
    beside: Mapping[str, bytes] = field(default_factory=dict)


def _recipe(folder: Path, name: str) -> None:
    from ursa_core.recipe.loading import load_recipe, to_yaml

    file = folder / name
    to_yaml(load_recipe(file, []))


def _list(folder: Path, name: str) -> None:
    from ursa_core.batches.lists import read_list, refuse

    columns = {"prompt": str, "seed": int, "guidance": float, "fit": bool, "lora": list}
    found = read_list(str(folder / name), columns, lambda: b"")
    if found.faults:
        str(refuse(found.source, found.faults))


def _captions(folder: Path, name: str) -> None:
    from ursa_core.encoding.captions import read_caption_file, read_manifest

    if name.endswith(".txt"):
        read_caption_file(folder / name.replace(".txt", ".mp4"))
    else:
        read_manifest(folder / name)


def _tokens(folder: Path, name: str) -> None:
    from ursa_core.tokens.token_files import load_tokens

    found = load_tokens(folder / name)
    assert 0 < found.fps < float("inf")
    assert found.codes.dtype == torch.int64


def _weights(folder: Path, name: str) -> None:
    from ursa_core.bundle.adapters import add_words, adding, read_adapter
    from ursa_core.bundle.path_files import CODEBOOK, stored_codebook
    from ursa_core.bundle.weights import load_weights, read_tensors
    from ursa_core.tokenizers.text import TextTokenizer

    if name.endswith(".bin"):
        assert all(value.sum() is not None for value in read_tensors(folder / name).values())
    elif name == CODEBOOK:
        stored_codebook(folder, torch.ones(12, 2))
    elif "adapter" in name:
        adapters = [read_adapter(folder)]
        adding(adapters)
        add_words(adapters, TextTokenizer.from_words(["a red circle"], 4), 4)
    else:
        model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
        load_weights(model, folder)
        assert all(weight.isfinite().all() for weight in model.state_dict().values())


def _configs(folder: Path, name: str) -> None:
    from ursa_core.bundle.bundle import load_bundle, load_tokenizer
    from ursa_core.bundle.folder import URSA_MODEL, read_json
    from ursa_core.bundle.path_files import build_path
    from ursa_core.bundle.subjects import load_subjects
    from ursa_core.bundle.summary import summary
    from ursa_core.errors import UrsaError
    from ursa_core.tokenizers.text import TextTokenizer

    if name.startswith("tokenizer/"):
        tokenizer = TextTokenizer.load(folder / "tokenizer", 8)
        tokenizer.encode(["a circle", "", "aaaa" * 50 + "🦊"])
    elif name.startswith("vae/"):
        load_tokenizer(folder)
    elif name.startswith("subjects"):
        load_subjects(folder)
    elif name.startswith("transformer/"):
        with suppress(UrsaError):  # either may stop at what the other passes
            summary(folder)
        load_bundle(folder)
    else:
        URSA_MODEL.check(folder)
        summary(folder)
        config = read_json(folder / "scheduler" / "scheduler_config.json")
        build_path(config, torch.tensor([[-1.0, 1.0], [1.0, 1.0], [0.5, -1.0]]))


def _media(folder: Path, name: str) -> None:
    from ursa_core.media import read_media

    read_media(folder / name, max_frames=50)


def _reports(folder: Path, name: str) -> None:
    from ursa_core.batches.manifest import Records, read_header
    from ursa_core.evaluation.reports.report import read_report

    if name == "report.json":
        read_report(folder)
    else:
        read_header(folder)
        Records(folder)


def readers(folder: Path) -> dict[str, Reader]:
    """All readers by name, with seeds that are made in a folder."""
    model = _tiny_model(folder / "model")
    media = _media_seeds(folder / "media")
    films = {name: data for name, data in media.items() if name.endswith((".mp4", ".mkv"))}
    images = {name: data for name, data in media.items() if name not in films}
    networks = {name for name in model if name.endswith(".safetensors")}
    recipes = {
        name: (ROOT / "recipes" / name).read_bytes()
        for name in ("nano.yaml", "nano_tokenizer.yaml", "nano_lora.yaml", "ursa_video.yaml")
    }
    rows = [{"prompt": "a", "seed": 3, "guidance": 2.5, "fit": True, "lora": ["x:1"]}] * 3
    lists = {
        "a.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode(),
        "a.csv": b'prompt,seed,guidance\n"a, b",3,2.5\nc,,\n',
        "a.txt": "a fox\ngrün\n".encode(),
    }
    captions = {
        "metadata.jsonl": b'{"file": "a.mp4", "captions": ["a", "b"]}\n{"file": "b", "text": ""}\n',
        "metadata.csv": b'file,caption\na.mp4,"a, b"\nb.mp4,c\n',
        "a.txt": "one\n\nzwölf\n".encode(),
    }
    found = [
        Reader("recipes", recipes, mutators.mutate_yaml, _recipe,
               ("recipe/loading.py",), "ursa_core.recipe.loading:_describe",
               lambda _, detail: detail["type"] == "extra_forbidden"),
        Reader("lists", lists, by_name, _list,
               ("batches/lists.py",), "ursa_core.batches.lists:_converted",
               lambda column, value, kind: kind is list and not isinstance(value, list)),
        Reader("captions", captions, by_name, _captions,
               ("encoding/captions.py",), "ursa_core.encoding.captions:_row_captions",
               lambda row: not all(isinstance(v, str | list) for v in row.values())),
        Reader("tokens", _token_seeds(folder), mutators.mutate_safetensors, _tokens,
               ("tokens/token_files.py",), "ursa_core.tokens.token_files:parse_object",
               lambda text: '"fps": 8.0' not in text),
        Reader("weights", _weight_seeds(folder / "weights"), by_name, _weights,
               ("bundle/weights.py", "bundle/folder.py", "bundle/adapters.py"),
               "ursa_core.bundle.weights:check_tensors",
               lambda expected, *_: len(expected) == 4),
        Reader("configs", {n: d for n, d in model.items() if n not in networks},
               mutators.mutate_json, _configs,
               ("configs.py", "bundle/settings.py", "bundle/path_files.py", "tokenizers/text.py"),
               "ursa_core.configs:unusable",
               lambda file, key, value, expected: isinstance(value, list | dict),
               beside=model),
        Reader("reports", _report_seeds(), mutators.mutate_json_lines, _reports,
               ("files.py", "evaluation/reports/report.py", "batches/manifest.py"),
               "ursa_core.files:_check_depth",
               lambda value: value == {}),
        Reader("images", images, by_name, _media,
               ("media/reading.py", "media/images.py"), "ursa_core.media.images:parsed",
               lambda comment, tags: bool(comment) and not comment.startswith("{")),
        Reader("films", films, mutators.mutate_bytes, _media,
               ("media/reading.py", "media/films.py", "media/sources.py"),
               "ursa_core.media.reading:_unreadable", slower=10),
    ]  # fmt: skip
    return {reader.name: reader for reader in found}


def by_name(random: Random, data: bytes) -> bytes:
    """The change that suits the kind of an input, told from its first bytes."""
    if data.startswith(b"\x89PNG"):
        return mutators.mutate_png(random, data)
    if data[8:9] == b"{":
        return mutators.mutate_safetensors(random, data)
    if data.startswith(b"{"):
        return mutators.mutate_json_lines(random, data)
    if b"\0" in data:
        return mutators.mutate_bytes(random, data)
    return mutators.mutate_text(random, data)


def _weight_seeds(folder: Path) -> dict[str, bytes]:
    """Weights in two files with their index, an adapter and a codebook."""
    from safetensors.torch import save_file

    from ursa_core.bundle.adapters import ORIGIN, PREFIX, WORD_ROWS, WORDS
    from ursa_core.bundle.folder import WEIGHTS, index_of

    folder.mkdir()
    shards = {
        "a.safetensors": {"0.weight": torch.ones(3, 4), "0.bias": torch.ones(3)},
        "b.safetensors": {"1.weight": torch.ones(2, 3), "1.bias": torch.ones(2)},
    }
    matrices = {"A": torch.ones(2, 4), "B": torch.ones(3, 2)}
    adapter = {f"{PREFIX}0.lora_{side}.weight": value for side, value in matrices.items()}
    adapter[WORD_ROWS] = torch.ones(1, 4)
    others = {
        "adapter_model.safetensors": adapter,
        "scheduler_model.safetensors": {"path.emb": torch.ones(12, 2)},
    }
    for file, tensors in (shards | others).items():
        save_file(tensors, folder / file)
    names = {name: file for file, tensors in shards.items() for name in tensors}
    torch.save(shards["a.safetensors"], folder / "network.bin")
    (folder / index_of(WEIGHTS)).write_text(json.dumps({"weight_map": names}))
    config = {"peft_type": "LORA", "lora_alpha": 4, "r": 2, "use_rslora": False}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / ORIGIN).write_text(json.dumps({WORDS: ["cross"]}))
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def _tiny_model(folder: Path) -> dict[str, bytes]:
    """Files of a whole model with networks of a few thousand weights."""
    from ursa_core.bundle.bundle import save_bundle, save_tokenizer
    from ursa_core.bundle.settings import BundleSettings
    from ursa_core.bundle.subjects import Subject
    from ursa_core.models.transformer import Transformer, TransformerConfig
    from ursa_core.path.metric import MetricPath
    from ursa_core.path.schedules import PowerSchedule
    from ursa_core.tokenizers.text import TextTokenizer
    from ursa_core.tokenizers.video_fsq import VideoTokenizer, VideoTokenizerConfig

    torch.manual_seed(0)
    config = VideoTokenizerConfig((8, 8, 8), layers_per_block=1, latent_channels=4, levels=(4, 3))
    tokenizer = VideoTokenizer(config)
    save_tokenizer(folder, config, tokenizer.state_dict())
    words = TextTokenizer.from_words(["a red circle"], 8)
    sizes = TransformerConfig(16, 16, 1, 1, 1, words.max_id + 1, 12, 2, head_dim=16)
    network = Transformer(sizes)
    network.initialise_(tokenizer.codebook, torch.Generator().manual_seed(0))
    path = MetricPath(tokenizer.codebook, PowerSchedule(1.0, 5.0))
    subjects = [Subject("fox", ("animal",), "animals", "🦊")]
    save_bundle(
        folder, network, network.state_dict(), path, tokenizer.codebook, words, folder,
        BundleSettings(max_prompt_length=8, frames=5, height=16, width=16), subjects,
    )  # fmt: skip
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def _media_seeds(folder: Path) -> dict[str, bytes]:
    from PIL import Image

    from ursa_core.media import write_media

    folder.mkdir()
    frames = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    told = {"prompt": "a", "seed": 1, "given": {"files": [{"file": "a", "frame": 0}]}}
    for name in ("a.mp4", "a.mkv", "a.gif", "a.webp"):
        write_media(folder / name, frames, 8, told)
    write_media(folder / "a.png", frames[:1], 1, told)
    for name in ("b.jpg", "b.tif", "b.bmp", "b.png"):
        Image.fromarray(frames[0]).save(folder / name)
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def _token_seeds(folder: Path) -> dict[str, bytes]:
    from ursa_core.tokens.token_files import save_tokens

    told: dict[str, Any] = {"tokenizer": "0123456789abcdef", "fps": 8.0, "prompt": "a", "seed": 1}
    save_tokens(folder / "a.safetensors", torch.arange(24).reshape(2, 3, 4), told)
    return {"a.safetensors": (folder / "a.safetensors").read_bytes()}


def _report_seeds() -> dict[str, bytes]:
    from dataclasses import asdict

    from ursa_core.batches.manifest import Header, Record
    from ursa_core.evaluation.reports.report import Report, Sample, Score, Table

    report = Report(
        "shapes", {"seed": 1}, complete=True,
        scores=(Score("colour", 0.5, unit="share"),),
        tables=(Table("t", ("a",), (("b",),)),),
        samples=(Sample("a.mp4", "a", {"colour": True}, 0.5),),
        notes=("n",),
    )  # fmt: skip
    header = Header("sample", "nano", "0123", 1, "0.1")
    record = Record("k", "a.mp4", "done", 1, {"steps": 3}, 1.5)
    lines = [json.dumps(asdict(row)) for row in (header, record, record)]
    return {
        "report.json": json.dumps(report.to_json()).encode(),
        "manifest.jsonl": ("\n".join(lines) + "\n").encode(),
    }
