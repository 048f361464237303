"""Windows, given frames and times of training batches."""

from collections import Counter

import pytest
import torch
from tiny_runs import GENERATOR, recipe_of

from ursa_core.data.shard_writer import ShardWriter, TokenRow
from ursa_core.data.shards import TokenIdentity, read_shards
from ursa_core.errors import RecipeError
from ursa_core.training.token_batches import LAST_TIME, TokenBatches

IDENTITY = TokenIdentity("ab12", 100, (10, 10), 4, 8)
FRAMES = 4
LENGTHS = (FRAMES, FRAMES, FRAMES, 7, 9)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Clips of several lengths; each code tells its clip (tens) and its latent frame (ones)."""
    folders = [tmp_path_factory.mktemp("shards") for _ in range(2)]
    for folder, clips in zip(folders, (range(3), range(3, 5)), strict=True):
        with ShardWriter(folder, IDENTITY) as writer:
            for clip in clips:
                codes = (10 * clip + torch.arange(LENGTHS[clip]))[:, None, None].expand(-1, 2, 1)
                writer.add(TokenRow(codes.contiguous(), (f"caption {clip}",), 8.0, 0.0, str(clip)))
    return read_shards(*folders)


def batch_of(table, folder, *overrides):
    recipe = recipe_of(GENERATOR, folder, "train.batch_size=400", *overrides)
    made = TokenBatches(recipe, table).batch(0)
    shape = (400, made.grid.frames, 2)
    return made, made.codes.view(shape)[..., 0], made.times.view(shape)[..., 0]


def test_without_a_length_the_most_frequent_clips_are_taken_whole(table, tmp_path):
    made, codes, _ = batch_of(table, tmp_path)
    assert made.grid.frames == FRAMES
    assert set(codes[:, 0].tolist()) == {0, 10, 20}
    assert not TokenBatches(recipe_of(GENERATOR, tmp_path), table).has_middles


def test_longer_clips_give_windows_from_anywhere(table, tmp_path):
    made, codes, _ = batch_of(table, tmp_path, "data.frames=4", "objective.caption_dropout=0")
    assert torch.equal(codes - codes[:, :1], torch.arange(4).expand(400, -1))  # in one piece
    counts = Counter(codes[:, 0].tolist())
    assert set(counts) == {0, 10, 20, *range(30, 34), *range(40, 46)}
    assert all(counts[clip] == 80 for clip in (0, 10, 20))  # five epochs of whole clips
    assert made.prompts == [f"caption {first // 10}" for first in codes[:, 0].tolist()]


def test_windows_from_behind_the_start_are_given_their_first_frames(table, tmp_path):
    _, codes, times = batch_of(table, tmp_path, "data.frames=4", "objective.async_probability=1")
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
def test_each_task_gives_its_frames_as_often_as_asked(task, patterns, table, tmp_path):
    asked = f"objective.{task}_probability=0.3"
    _, _, times = batch_of(table, tmp_path, asked, "objective.async_probability=0")
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
    recipe = recipe_of(GENERATOR, tmp_path, "data.frames=4", "objective.extension_probability=0.5")
    straight, again = TokenBatches(recipe, table), TokenBatches(recipe, table)
    made = [straight.batch(index) for index in range(4)]
    for name in ("codes", "times", "prompts"):
        one, other = getattr(made[3], name), getattr(again.batch(3), name)
        assert one == other if isinstance(one, list) else torch.equal(one, other)
    assert not torch.equal(made[0].times, made[1].times)


def test_windows_longer_than_every_clip_are_refused(table, tmp_path):
    recipe = recipe_of(GENERATOR, tmp_path, "data.frames=10")
    with pytest.raises(RecipeError, match=r"no clip in .* has 10 latent frames"):
        TokenBatches(recipe, table)
