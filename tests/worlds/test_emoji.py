"""Clips of emoji and film: decided by their number, true to their captions, apart by split."""

import json

import numpy as np
import pytest
from pixel_packs import prepare_film, prepare_sprites
from tiny_packs import NUM_FRAMES, SUBJECTS, write_packs

from ursa_core.errors import DataError, UsageError
from ursa_core.worlds.emoji import (
    BACKGROUNDS,
    PHASE_STEP,
    backgrounds_of,
    caption,
    is_held_out,
    nearest_background,
    render,
    sample_phase,
)
from ursa_core.worlds.sprites import ClipMixture, load_film, load_sprites

NAMES = [name for name, *_ in SUBJECTS]


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    return write_packs(tmp_path_factory.mktemp("packs"))


@pytest.fixture(scope="module")
def folder(packs):
    out = packs / "pixels"
    prepare_film(packs / "film", out, 36)
    prepare_sprites(packs / "emoji", out, 48)
    return out


@pytest.fixture(scope="module")
def clips(folder):
    return load_sprites(folder)


def ground(clip, name):
    return (np.abs(clip.astype(int) - BACKGROUNDS[name]) <= 1).all(-1)


def test_animals_and_smileys_come_first_and_keep_all_frames(folder, packs):
    sprites = load_sprites(folder)
    assert sorted(s.name for s in sprites.subjects) == sorted(NAMES)
    assert sprites.subjects[-1].name == "airplane"
    assert all(len(sprites.loop(k)) == NUM_FRAMES for k in range(len(NAMES)))
    black_cat = next(s for s in sprites.subjects if s.name == "black cat")
    assert black_cat.emoji == "\N{CAT}\N{ZERO WIDTH JOINER}\N{BLACK LARGE SQUARE}"
    few = prepare_sprites(packs / "emoji", packs / "few", 16, 2)
    assert few.subjects == sprites.subjects[:2]
    assert few.frames.shape == (2 * NUM_FRAMES, 16, 16, 4)


def test_a_clip_depends_on_its_place_alone(clips):
    frames, text = clips.training_clip(3, 7, "train", 9, 32, 48)
    again, same = clips.training_clip(3, 7, "train", 9, 32, 48)
    assert frames.shape == (9, 32, 48, 3)
    assert frames.dtype == np.uint8
    assert np.array_equal(frames, again)
    assert text == same
    others = [
        clips.training_clip(*place, 9, 32, 48)[0] for place in ((3, 8, "train"), (4, 7, "all"))
    ]
    assert not any(np.array_equal(frames, other) for other in others)


def test_one_pair_in_ten_is_held_out_and_splits_share_none(clips):
    for name in (*NAMES, *map(str, range(100))):
        held_out = backgrounds_of(name, "heldout")
        assert 1 <= len(held_out) <= 2
        assert not set(held_out) & set(backgrounds_of(name, "train"))
        assert backgrounds_of(name, "all") == list(BACKGROUNDS)
    shares = [is_held_out(str(k), name) for k in range(500) for name in BACKGROUNDS]
    assert np.mean(shares) == pytest.approx(0.1, abs=0.02)
    for split in ("train", "heldout"):
        for index in range(40):
            _, text = clips.training_clip(0, index, split, 1, 8, 8)
            name = next((n for n in sorted(NAMES, key=len)[::-1] if n in text), None)
            background = text.split()[-2] if text.endswith("background") else None
            if name and background:
                assert is_held_out(name, background) == (split == "heldout"), text


def test_figures_stand_in_the_middle_in_one_size():
    loop = np.zeros((2, 48, 48, 4), np.uint8) + np.uint8(255)  # a full square, to measure
    for background in ("black", "navy"):
        clip = render(loop, background, 64, 96, np.arange(17))
        for inside in ~ground(clip, background):
            rows, columns = np.nonzero(inside)
            assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 60, 19, 76)


def test_captions_follow_the_template():
    assert caption("fox", "purple") == "a fox on a purple background"
    assert caption("ant", "orange") == "an ant on an orange background"


def test_loops_begin_at_every_fourth_frame_and_wrap(clips):
    rng = np.random.default_rng(0)
    loop = clips.loop(0)
    phases = {sample_phase(rng, loop) for _ in range(40)}
    assert phases == set(range(0, NUM_FRAMES, PHASE_STEP))
    clip = render(loop, "black", 32, 32, np.arange(NUM_FRAMES + 2))
    assert np.array_equal(clip[0], clip[NUM_FRAMES])
    assert not np.array_equal(clip[0], clip[1])


def test_windows_are_cut_from_the_whole_clip(clips):
    for index in range(6):
        whole, _ = clips.training_clip(0, index, "train", 17, 16, 16)
        window, _ = clips.training_clip(0, index, "train", 17, 16, 16, full_frames=17)
        assert np.array_equal(whole, window)
    with pytest.raises(UsageError, match="no split 'test'"):
        clips.training_clip(0, 0, "test", 5, 16, 16)


def test_film_is_cut_within_its_shots_and_by_split(folder):
    film = load_film(folder)
    assert [shot.clip for shot in film.shots] == ["bikes"] + ["long"] * 8
    assert [s.held_out for s in film.shots] == [True, *(k == 4 for k in range(8))]
    assert film.frames.shape == (20 + 32, 36, 64, 3)
    for split in ("train", "heldout"):
        for index in range(10):
            window = film.training_clip(0, index, split, 3, 24, 24)
            assert window.shape == (3, 24, 24, 3)
            levels = window.mean((1, 2, 3))
            # Levels fall by 6 a sampled frame within a shot of four, 24 from shot to shot;
            # the film that is held out whole is flat.
            shots = {round((250 - level) / 6) // 4 for level in levels}
            is_flat = np.ptp(levels) < 1
            assert len(shots) == 1
            assert (is_flat or shots == {4}) == (split == "heldout")
    with pytest.raises(DataError, match="no train shot of the film has 9 frames"):
        film.training_clip(0, 0, "train", 9, 24, 24)
    with pytest.raises(UsageError, match="no split 'all'"):
        film.training_clip(0, 0, "all", 3, 24, 24)


def test_a_mixture_draws_what_its_sources_draw(folder, clips):
    mixture = ClipMixture({"emoji": 1, "film": 1, "shapes": 2}, folder)
    drawn = [mixture.clip(0, k, "train", 3, 16, 16, 3) for k in range(60)]
    counts = {kind: sum(k == kind for _, k in drawn) for kind in ("emoji", "film", "shapes")}
    assert counts["emoji"] >= 5
    assert counts["film"] >= 5
    assert counts["shapes"] >= 19
    place = next(k for k, (_, kind) in enumerate(drawn) if kind == "emoji")
    alone, _ = clips.training_clip(0, place, "train", 3, 16, 16)
    assert np.array_equal(drawn[place][0], alone)
    assert {
        kind
        for _, kind in (
            ClipMixture({"emoji": 1}, folder).clip(0, k, "train", 1, 8, 8, 1) for k in range(9)
        )
    } == {"emoji"}


def test_damaged_folders_are_told(packs, folder, tmp_path):
    with pytest.raises(DataError, match="no prepared emoji"):
        load_sprites(tmp_path)
    with pytest.raises(DataError, match="no prepared film"):
        load_film(tmp_path)
    with pytest.raises(DataError, match=r"metadata.jsonl can't be read"):
        prepare_sprites(tmp_path, tmp_path / "out", 16)
    with pytest.raises(DataError, match="no mp4 film"):
        prepare_film(tmp_path, tmp_path / "out", 16)
    (tmp_path / "shots.json").write_text('{"file": "long.mp4"}')
    with pytest.raises(DataError, match="no table of shots"):
        prepare_film(tmp_path, tmp_path / "out", 16)
    (tmp_path / "metadata.jsonl").write_text('{"file": "a.webp"}\n')
    with pytest.raises(DataError, match="no table of emoji"):
        prepare_sprites(tmp_path, tmp_path / "out", 16)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    starts = json.loads((tmp_path / "sprites.json").read_text())["starts"]
    for damaged in ([0, 3], [0, 0, *starts[2:]], [-1, *starts[1:]], [1, *starts[1:]]):
        (tmp_path / "sprites.json").write_text(json.dumps({"starts": damaged}))
        with pytest.raises(DataError, match="don't fit one another"):
            load_sprites(tmp_path)
    for table, content, load in (
        ("sprites.json", {"starts": [0, 2.5]}, load_sprites),
        ("film.json", {"shots": [{"start": "0", "stop": 9, "held_out": 0, "clip": 1}]}, load_film),
        ("film.json", {"shots": 3}, load_film),
    ):
        (tmp_path / table).write_text(json.dumps(content))
        with pytest.raises(DataError, match="damaged"):
            load(tmp_path)
    (tmp_path / "sprites.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match="is damaged"):
        load_sprites(tmp_path)


def test_colours_of_css_have_a_nearest_background():
    assert nearest_background("turquoise") == "teal"
    assert nearest_background("Grey") == "gray"
    assert nearest_background("gold") == "yellow"
    assert nearest_background("fox") is None
