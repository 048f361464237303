"""Windows, given frames and times of training batches."""

from collections import Counter

import pytest
import torch
from tiny_runs import GENERATOR, recipe_of

from ursa_core.errors import DataError, RecipeError
from ursa_core.tokens.shards import TokenIdentity, read_shards
from ursa_core.tokens.writer import ShardWriter, TokenRow
from ursa_core.training.generator.batches import TokenBatches, first_sentence
from ursa_core.training.generator.estimates import plan_data
from ursa_core.training.generator.objective import LAST_TIME

IDENTITY = TokenIdentity("ab12", 100, (10, 10), 4, 8)
FRAMES = 4
LENGTHS = (FRAMES, FRAMES, FRAMES, 7, 9)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Clips of several lengths; each code tells its clip (tens) and its latent frame (ones)."""
    folders = [tmp_path_factory.mktemp("shards") for _ in range(2)]
    for folder, clips in zip(folders, (range(3), range(3, 5)), strict=True):
        with ShardWriter(folder, IDENTITY) as writer:
            for clip in clips:
                codes = (10 * clip + torch.arange(LENGTHS[clip]))[:, None, None].expand(-1, 2, 1)
                captions, motion = (f"caption {clip}",), clip / 10
                writer.add(TokenRow(codes.contiguous(), captions, 8.0, motion, str(clip)))
    return folders


@pytest.fixture(scope="module")
def table(folders):
    return read_shards(*folders)


def batch_of(table, folder, *overrides):
    recipe = recipe_of(GENERATOR, folder, "train.batch_size=400", *overrides)
    made = TokenBatches(recipe, table).batch(0)
    shape = (400, made.grid.frames, 2)
    return made, made.codes.view(shape)[..., 0], made.times.view(shape)[..., 0]


def test_without_a_length_each_grid_makes_batches_of_whole_clips(table, tmp_path):
    batches = TokenBatches(recipe_of(GENERATOR, tmp_path), table)
    assert batches.grid.frames == FRAMES  # most clips
    assert not batches.has_middles
    seen = set()
    for index in range(12):
        made = batches.batch(index)
        codes = made.codes.view(4, made.grid.frames, 2)[..., 0]
        assert torch.equal(codes - codes[:, :1], torch.arange(made.grid.frames).expand(4, -1))
        assert all(LENGTHS[first // 10] == made.grid.frames for first in codes[:, 0].tolist())
        seen |= set(codes[:, 0].tolist())
    assert seen == {0, 10, 20, 30, 40}


def test_a_number_of_tokens_sets_each_grids_batch(table, tmp_path):
    """A prompt of 12, begin of video, and two codes a frame: 21, 27 and 31 tokens a clip."""
    recipe = recipe_of(GENERATOR, tmp_path, "data.batch_tokens=70", "train.batch_size=8")
    batches = TokenBatches(recipe, table)
    sizes = {b.grid.frames: b.batch_size for b in batches.order.buckets}
    assert sizes == {4: 3, 7: 2, 9: 2}
    for index in range(10):
        made = batches.batch(index)
        assert len(made.codes) * batches.tokens(made.grid) <= 70
        assert len(made.codes) == len(made.prompts) == len(made.times) == sizes[made.grid.frames]
    plan = plan_data(batches)
    assert plan.largest.grid.frames in (4, 9)
    assert plan.largest.tokens == 63
    assert sum(each.share for each in plan.grids) == pytest.approx(1)
    few = recipe_of(GENERATOR, tmp_path, "data.batch_tokens=30")
    with pytest.raises(RecipeError, match="30 are fewer than the 31 of one clip of 9×2×1"):
        TokenBatches(few, table)


def test_clips_shorter_than_a_window_are_counted(table, tmp_path):
    batches = TokenBatches(recipe_of(GENERATOR, tmp_path, "data.latent_frames=7"), table)
    assert batches.num_left_out == 3
    assert [b.rows.tolist() for b in batches.order.buckets] == [[3, 4]]


def test_motion_stands_before_prompts_where_asked_for(table, tmp_path):
    asked = ("data.motion_prefix=true", "data.motion_scale=50", "objective.caption_dropout=0.5")
    batches = TokenBatches(recipe_of(GENERATOR, tmp_path, *asked, "data.latent_frames=4"), table)
    prompts = {prompt for index in range(20) for prompt in batches.batch(index).prompts}
    assert prompts == {"", *(f"motion={5 * clip:.1f}, caption {clip}" for clip in range(5))}
    assert batches.motion == pytest.approx(10)


def test_one_of_several_captions_is_drawn_each_time(tmp_path):
    captions = ("short", "a rather longer one")
    with ShardWriter(tmp_path, IDENTITY) as writer:
        writer.add(TokenRow(torch.zeros(1, 2, 2, dtype=torch.int64), captions, 8.0, 0.0, "a"))
        writer.add(TokenRow(torch.zeros(1, 2, 2, dtype=torch.int64), (), 8.0, 0.0, "b"))
    asked = ("train.batch_size=400", "objective.caption_dropout=0")
    batches = TokenBatches(recipe_of(GENERATOR, tmp_path, *asked), read_shards(tmp_path))
    counts = Counter(batches.batch(0).prompts)
    assert counts[""] == 200  # the clip without a caption
    assert set(counts) == {"", *captions}
    assert all(70 < counts[caption] < 130 for caption in captions)


def test_short_captions_come_by_share(tmp_path):
    long, only = "A red fox runs. It is night.", "A blue ring! Nothing else at 3.5 fps."
    with ShardWriter(tmp_path, IDENTITY) as writer:
        for captions in ((long, "a fox"), (only,)):
            codes = torch.zeros(1, 2, 2, dtype=torch.int64)
            writer.add(TokenRow(codes, captions, 8.0, 0.05, captions[0]))
    asked = ["train.batch_size=400", "objective.caption_dropout=0", "data.short_captions=0.25"]
    table = read_shards(tmp_path)
    counts = Counter(TokenBatches(recipe_of(GENERATOR, tmp_path, *asked), table).batch(0).prompts)
    assert counts.keys() == {long, "a fox", only, "A blue ring!"}
    assert counts[long] + counts["a fox"] == counts[only] + counts["A blue ring!"] == 200
    assert all(30 < counts[short] < 70 for short in ("a fox", "A blue ring!"))
    asked += ["data.motion_prefix=true", "data.motion_share=0.6"]
    made = TokenBatches(recipe_of(GENERATOR, tmp_path, *asked), table).batch(0)
    assert 200 < sum(prompt.startswith("motion=5.0, ") for prompt in made.prompts) < 280
    assert Counter(p.removeprefix("motion=5.0, ") for p in made.prompts) == counts


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("A fox runs. It is night.", "A fox runs."), ("A fox", "A fox"), ("A fox.", "A fox."),
        ("At 3.5 fps! Fine.", "At 3.5 fps!"), ("Why?\nSo.", "Why?"), ("", ""),
    ],
)  # fmt: skip
def test_the_first_sentence_ends_before_a_space(text, first):
    assert first_sentence(text) == first


def test_a_share_of_motion_needs_its_prefix(tmp_path):
    with pytest.raises(RecipeError, match=r"motion_share: has no meaning"):
        recipe_of(GENERATOR, tmp_path, "data.motion_share=0.6")


def test_each_frame_always_has_a_time_of_its_own(table, tmp_path):
    _, codes, times = batch_of(table, tmp_path, "objective.async_probability=1")
    assert len(codes) == 400
    assert all(len(set(row.tolist())) == times.shape[1] for row in times)


def test_data_without_any_caption_is_refused_unless_all_are_dropped(tmp_path):
    with ShardWriter(tmp_path, IDENTITY) as writer:
        writer.add(TokenRow(torch.zeros(1, 2, 2, dtype=torch.int64), (), 8.0, 0.0, "a"))
    table = read_shards(tmp_path)
    with pytest.raises(DataError, match="has a caption") as caught:
        TokenBatches(recipe_of(GENERATOR, tmp_path), table)
    assert "caption_dropout=1" in caught.value.hint
    without = TokenBatches(recipe_of(GENERATOR, tmp_path, "objective.caption_dropout=1"), table)
    assert set(without.batch(0).prompts) == {""}


def test_longer_clips_give_windows_from_anywhere(table, tmp_path):
    asked = ("data.latent_frames=4", "objective.caption_dropout=0")
    made, codes, _ = batch_of(table, tmp_path, *asked)
    assert torch.equal(codes - codes[:, :1], torch.arange(4).expand(400, -1))  # in one piece
    counts = Counter(codes[:, 0].tolist())
    assert set(counts) == {0, 10, 20, *range(30, 34), *range(40, 46)}
    assert all(counts[clip] == 80 for clip in (0, 10, 20))  # five epochs of whole clips
    assert made.prompts == [f"caption {first // 10}" for first in codes[:, 0].tolist()]


def test_windows_from_behind_the_start_are_given_their_first_frames(table, tmp_path):
    asked = ("data.latent_frames=4", "objective.async_probability=1")
    _, codes, times = batch_of(table, tmp_path, *asked)
    middle = codes[:, 0] % 10 > 0
    given = times == LAST_TIME
    assert not given[~middle].any()
    counts = given[middle].sum(1)
    assert set(counts.tolist()) == {1, 2, 3}
    for row, count in zip(times[middle], counts.tolist(), strict=True):
        assert (row[:count] == LAST_TIME).all()
        assert (row[count:] == row[count]).all()
        assert row[count] < LAST_TIME


@pytest.mark.parametrize(
    ("task", "patterns"),
    [
        ("image_to_video", {(1, 0, 0, 0)}),
        ("extension", {(1, 0, 0, 0), (1, 1, 0, 0), (1, 1, 1, 0)}),
        ("interpolation", {(1, 0, 0, 1)}),
    ],
)
def test_each_task_gives_its_frames_as_often_as_asked(task, patterns, folders, tmp_path):
    asked = (f"objective.{task}_probability=0.3", "objective.async_probability=0")
    _, _, times = batch_of(read_shards(folders[0]), tmp_path, *asked)
    found = Counter(tuple(row.int().tolist()) for row in times == LAST_TIME)
    assert set(found) == patterns | {(0, 0, 0, 0)}
    assert 0.2 < 1 - found[0, 0, 0, 0] / 400 < 0.4
    rest = times[(times == LAST_TIME).sum(1) == 0]
    assert torch.equal(rest, rest[:, :1].expand_as(rest))


def test_training_times_are_shifted(table, tmp_path):
    apart = "objective.async_probability=0.5"
    _, _, plain = batch_of(table, tmp_path, apart)
    _, _, shifted = batch_of(table, tmp_path, apart, "objective.shift=3")
    assert torch.allclose(shifted, plain / (plain + 3 * (1 - plain)))
    assert 0.45 < plain.mean() < 0.55
    assert 0.2 < shifted.mean() < 0.35


def test_a_batch_depends_on_its_number_alone(table, tmp_path):
    asked = ("data.latent_frames=4", "objective.extension_probability=0.5")
    recipe = recipe_of(GENERATOR, tmp_path, *asked)
    straight, again = TokenBatches(recipe, table), TokenBatches(recipe, table)
    made = [straight.batch(index) for index in range(4)]
    for name in ("codes", "times", "prompts"):
        one, other = getattr(made[3], name), getattr(again.batch(3), name)
        assert one == other if isinstance(one, list) else torch.equal(one, other)
    assert not torch.equal(made[0].times, made[1].times)


def test_windows_longer_than_every_clip_are_refused(table, tmp_path):
    recipe = recipe_of(GENERATOR, tmp_path, "data.latent_frames=10")
    with pytest.raises(RecipeError, match=r"no clip in .* has 10 latent frames"):
        TokenBatches(recipe, table)


def test_data_sets_are_mixed_by_their_shares(folders, tmp_path):
    first, second = map(str, folders)
    text = GENERATOR.replace("{shards: SHARDS}", f"[{{shards: {first}, share: 0.25}}, SECOND]")
    text = text.replace("SECOND", f"{{shards: [{second}], share: 0.75}}")
    recipe = recipe_of(text, tmp_path)
    assert recipe.mixture == [((first,), 0.25), ((second,), 0.75)]
    batches = TokenBatches(recipe, read_shards(first, second), 1, recipe.mixture)
    assert batches.sets == [(first, 3, 0.25), (second, 2, 0.75)]
    rows = [row for index in range(2500) for row in batches.order.batch(index)[1]]
    assert sum(row < 3 for row in rows) / len(rows) == pytest.approx(0.25, abs=0.005)
    assert len(batches.batch(0).codes) == 4
    plan = plan_data(batches)
    shares = {each.grid.frames: each.share for each in plan.grids}
    assert shares == pytest.approx({4: 0.25, 7: 0.375, 9: 0.375})


def test_shares_that_do_not_fit_are_refused(tmp_path):
    def faults(data, more=""):
        with pytest.raises(RecipeError) as caught:
            recipe_of(GENERATOR.replace("{shards: SHARDS}", data) + more, tmp_path)
        return caught.value.message.split("\n  ")[1:]

    two = "[{shards: a, share: 0.5}, {shards: b, share: 0.4}]"
    assert faults(two) == ["data.sets, prior.share: the shares sum to 0.9, should be 1"]
    prior = "init: nano\nprior: {shards: p, share: 0.5, prompts: [a]}\n"
    assert faults(two, prior) == ["data.sets, prior.share: the shares sum to 1.4, should be 1"]
    (line,) = faults("{shards: a}", prior.replace("0.5", "1"))
    assert line.endswith("a share of 0 is left for data")
    assert faults("{shards: a}", prior.replace("init: nano", ""))[0].startswith("prior: is for")
    assert faults("{shards: a}", prior.replace("prompts: [a]", "num: 9")) == [
        "prior.prompts: is required"
    ]
    assert faults("[{shards: a, share: 0}]")[0].startswith("data.sets[0].share: should be greater")
    assert faults("[{shards: a, share: 0.5}, {shards: [b, ./a/], share: 0.5}]") == [
        "data.sets: a is given twice"
    ]
    assert faults("{shards: [a, b/../a]}") == ["data.shards: a is given twice"]
    for data in ("{shards: [a, ./p]}", "[{shards: p, share: 0.5}]"):
        assert faults(data, prior) == ["prior.shards: data has p already, give another folder"]
    assert faults("{shards: a, sets: [{shards: b, share: 1}]}")[0].startswith("data.shards: data.s")
    assert faults("{workers: 1}") == ["data.shards: is required"]


def test_a_set_without_a_fitting_clip_or_caption_is_refused(folders, tmp_path):
    first, second = map(str, folders)
    sets = f"{{latent_frames: 7, sets: [{{shards: {first}, share: 0.5}}, SECOND]}}"
    sets = sets.replace("SECOND", f"{{shards: {second}, share: 0.5}}")
    recipe = recipe_of(GENERATOR.replace("{shards: SHARDS}", sets), tmp_path)
    with pytest.raises(RecipeError, match=f"no clip in {first} has 7 latent frames"):
        TokenBatches(recipe, read_shards(first, second), 1, recipe.mixture)
    bare = tmp_path / "bare"
    with ShardWriter(bare, IDENTITY) as writer:
        writer.add(TokenRow(torch.zeros(7, 2, 1, dtype=torch.int64), (), 8.0, 0.0, "a"))
    recipe = recipe_of(
        GENERATOR.replace("{shards: SHARDS}", sets.replace(first, str(bare))), tmp_path
    )
    with pytest.raises(DataError, match=f"no clip in {bare} has a caption"):
        TokenBatches(recipe, read_shards(bare, second), 1, recipe.mixture)
