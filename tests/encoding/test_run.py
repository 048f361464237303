"""Tokenizing from Python, and the options that it takes."""

from pathlib import Path

import pytest
import torch

from ursa_cli.main import main
from ursa_core.bundle.bundle import save_tokenizer
from ursa_core.bundle.settings import BundleSettings, save_settings
from ursa_core.encoding.options import TokenizeOptions
from ursa_core.encoding.run import tokenize
from ursa_core.errors import UsageError
from ursa_core.media import write_media
from ursa_core.tokenizers.video_fsq import VideoTokenizer, VideoTokenizerConfig
from ursa_core.tokens.shards import read_shards
from ursa_core.worlds.shapes import training_clip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = VideoTokenizerConfig(
        block_out_channels=(8, 8, 8), layers_per_block=1, latent_channels=4, levels=(7, 5, 5)
    )
    save_tokenizer(tmp_path / "tiny", config, VideoTokenizer(config).state_dict())
    save_settings(tmp_path / "tiny", BundleSettings(frames=5, height=16, width=24, fps=8.0))
    return tmp_path / "tiny"


@pytest.fixture
def media(tmp_path: Path) -> Path:
    (tmp_path / "media").mkdir()
    for k, frames in enumerate((11, 6)):
        write_media(
            tmp_path / "media" / f"{k}.mkv", training_clip(0, k, "all", frames, 16, 24)[0], 8
        )
    return tmp_path / "media"


def test_python_tokenizes_a_folder_as_the_command_does(
    model: Path, media: Path, tmp_path: Path
) -> None:
    options = TokenizeOptions(clips="chunk", check=1)
    done = tokenize([media], tmp_path / "python", options, model=model, device="cpu")
    given = [str(media), "-o", str(tmp_path / "command"), "--model", str(model)]
    assert main(["tokenize", *given, "--clips", "chunk", "--check", "1", "--device", "cpu"]) == 0
    for name in ("shard-00000.parquet", "report.jsonl"):
        written = [(tmp_path / side / name).read_bytes() for side in ("python", "command")]
        assert written[0] == written[1]
    assert done.writer.shards == [tmp_path / "python" / "shard-00000.parquet"]
    assert (done.summary()["num_done"], len(read_shards(tmp_path / "python"))) == (3, 3)
    again = tokenize([media], tmp_path / "python", options, model=model, device="cpu")
    assert (again.summary()["num_done"], again.summary()["num_kept"]) == (0, 2)


def test_crops_are_added_to_the_whole_clips_and_are_the_same_in_every_run(
    model: Path, media: Path, tmp_path: Path
) -> None:
    tables = {}
    for name, crops, shown in (
        ("plain", 0, [media]),
        ("two", 2, [media]),
        ("one", 2, [media / "0.mkv"]),
    ):
        options = TokenizeOptions(clips="chunk", check=0, crops=crops)
        tokenize(shown, tmp_path / name, options, model=model)
        table = read_shards(tmp_path / name)
        tables[name] = {table.source(k): table.codes([k])[0].tolist() for k in range(len(table))}
    plain, two, one = tables.values()
    assert list(two) == [f"{name}~{k}" for name in plain for k in range(3)]
    assert {name: two[f"{name}~0"] for name in plain} == plain
    assert len({str(codes) for codes in two.values()}) > len(plain)
    assert one.items() <= two.items()
    again = tokenize(
        [media], tmp_path / "two", TokenizeOptions(clips="chunk", crops=2), model=model
    )
    assert (again.summary()["num_done"], again.summary()["num_kept"]) == (0, 2)


def test_skipped_files_are_python_warnings(model: Path, media: Path, tmp_path: Path) -> None:
    (media / "0.mkv").write_bytes(b"no film")
    with pytest.warns(UserWarning, match=r"skipped: .*0\.mkv is no film"):
        done = tokenize([media], tmp_path / "shards", model=model)
    assert (done.summary()["num_done"], done.summary()["num_skipped"]) == (1, 1)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (TokenizeOptions(fps=0), "^`fps` can't be 0"),
        (TokenizeOptions(clips="slide"), "^`clips` slide needs `stride`"),
        (TokenizeOptions(clips_per_file=2), "^`clips_per_file` is for `clips` uniform"),
        (TokenizeOptions(crops=-1), "^`crops` can't be -1"),
        (TokenizeOptions(clips="full", frames=5), "takes all frames, and no `frames`"),
        (TokenizeOptions(min_motion=0.5, max_motion=0.25), "0.5 to 0.25 of motion"),
        (TokenizeOptions(data=Path()), "^`data` is for the emoji"),
    ],
)
def test_wrong_options_are_named_as_python_names_them(
    options: TokenizeOptions, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=complaint):
        tokenize(["media"], tmp_path / "shards", options)
    assert list(tmp_path.iterdir()) == []
