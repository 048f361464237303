"""The loop on toy networks: what each step does, and that items and frames stay independent."""

import itertools

import pytest
import torch

from ursa_core.bundle.options import SamplingOptions
from ursa_core.errors import UsageError
from ursa_core.grids import LatentGrid
from ursa_core.path.base import ProbPath
from ursa_core.path.metric import MetricPath
from ursa_core.path.mixture import MaskedPath, MixturePath
from ursa_core.path.schedules import PowerSchedule
from ursa_core.sampling.conditioning import SamplingStart
from ursa_core.sampling.denoise import OnStep, denoise
from ursa_core.sampling.guidance import Guidance
from ursa_core.sampling.time_grid import frame_times, time_grid

K, GRID = 20, LatentGrid(3, 2, 2)
PROMPTS = torch.tensor([[3, 1], [7, 2], [5, 5]])
EMPTY = torch.zeros(3, 2, dtype=torch.int64)
CODEBOOK = torch.randn(K, 3, generator=torch.Generator().manual_seed(0))
PATHS: dict[str, ProbPath] = {
    "metric": MetricPath(CODEBOOK, PowerSchedule(1.0, 5.0)),
    "mixture": MixturePath(K),
    "masked": MaskedPath(K),
}


class ToyNetwork:
    """A random but fixed network whose output depends on the prompt and on every code."""

    def __init__(self) -> None:
        draws = torch.Generator().manual_seed(9)
        self.codes = torch.randn(K + 1, 8, generator=draws, dtype=torch.float64)
        self.words = torch.randn(10, 8, generator=draws, dtype=torch.float64)
        self.weight = torch.randn(8, K, generator=draws)
        self.rows: list[int] = []

    def __call__(self, prompt_ids: torch.Tensor, x_t: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(x_t))
        codes = self.codes[x_t]
        return codes + codes.mean(1, keepdim=True) + self.words[prompt_ids].mean(1, keepdim=True)

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        assert hidden.dtype == torch.float32
        return hidden @ self.weight


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> ProbPath:
    return PATHS[request.param]


def sample(
    path: ProbPath,
    items: list[int],
    times: torch.Tensor,
    network: ToyNetwork | None = None,
    *,
    guidance: Guidance | None = None,
    locked: tuple[torch.Tensor, torch.Tensor] | None = None,
    on_step: OnStep | None = None,
    **options,
) -> torch.Tensor:
    network = network or ToyNetwork()
    generators = [torch.Generator().manual_seed(100 + item) for item in items]
    x_0 = path.initial((len(items), GRID.num_codes), generators)
    return denoise(
        network, network.head, path, SamplingStart(x_0, times, locked), SamplingOptions(**options),
        prompt_ids=PROMPTS[items], negative_ids=EMPTY[items], generators=generators,
        guidance=guidance, on_step=on_step,
    )  # fmt: skip


def test_codes_come_out_whatever_the_solver(path: ProbPath) -> None:
    for solver in (None, *path.solvers):
        x_1 = sample(path, [0, 1, 2], time_grid(6), solver=solver)
        assert x_1.shape == (3, GRID.num_codes)
        assert x_1.dtype == torch.int64
        assert 0 <= int(x_1.min()) <= int(x_1.max()) < K


def test_an_item_is_the_same_in_any_batch(path: ProbPath) -> None:
    for solver, correct in [*((solver, 0.0) for solver in path.solvers), ("integrated", 0.6)]:
        options = {"guidance": Guidance(3.0), "solver": solver, "correct": correct}
        batch = sample(path, [0, 1, 2], time_grid(6), **options)
        for items in ([1], [2, 1]):
            alone = sample(path, items, time_grid(6), **options)
            assert torch.equal(alone, batch[items])
        assert not torch.equal(batch[0], batch[1])


def test_network_runs_once_a_step_and_twice_the_rows_only_under_guidance() -> None:
    network = ToyNetwork()
    guidance = Guidance(3.0, (0.2, 0.7))
    sample(PATHS["metric"], [0, 1, 2], time_grid(10), network, guidance=guidance)
    assert network.rows == [3, 3, 6, 6, 6, 6, 6, 3, 3, 3]
    network = ToyNetwork()
    sample(PATHS["metric"], [0, 1, 2], time_grid(4), network)
    assert network.rows == [3, 3, 3, 3]


def test_equal_frame_times_are_the_synchronous_case(path: ProbPath) -> None:
    times = time_grid(7, 2.0)
    together = sample(path, [0, 1], times, solver="integrated")
    spread = frame_times(times[:, None].expand(-1, GRID.frames), GRID)
    assert torch.equal(sample(path, [0, 1], spread, solver="integrated"), together)


@pytest.mark.parametrize("correct", [0.0, 1.0])
def test_a_frame_that_is_done_early_stays(path: ProbPath, correct: float) -> None:
    seen: list[torch.Tensor] = []
    late = time_grid(8)
    early = (2 * late).clamp(max=1)
    times = frame_times(torch.stack([early, late, late], dim=1), GRID)
    x_1 = sample(
        path, [0, 1], times, solver="integrated", correct=correct,
        on_step=lambda _, x_t: seen.append(x_t.clone()),
    )  # fmt: skip
    assert all(torch.equal(x_t[:, :4], x_1[:, :4]) for x_t in seen[3:])
    assert int(x_1.max()) < K
    assert not torch.equal(seen[3][:, 4:], x_1[:, 4:])


def test_given_codes_stay_and_are_seen(path: ProbPath) -> None:
    mask = torch.zeros(2, GRID.num_codes, dtype=torch.bool)
    mask[:, :4] = True
    codes = torch.full((2, GRID.num_codes), 6)
    for solver, correct in [*((solver, 0.0) for solver in path.solvers), ("integrated", 1.0)]:
        seen: list[torch.Tensor] = []
        options = {"solver": solver, "correct": correct}
        x_1 = sample(
            path, [0, 1], time_grid(5), **options, locked=(mask, codes),
            on_step=lambda _, x_t, seen=seen: seen.append(x_t),
        )  # fmt: skip
        assert all(torch.equal(x_t[mask], codes[mask]) for x_t in [*seen, x_1])
        other = sample(path, [0, 1], time_grid(5), **options, locked=(mask, codes + 1))
        assert not torch.equal(other[~mask], x_1[~mask])


def test_every_step_of_the_default_solver_moves_something() -> None:
    for path in (PATHS["metric"], PATHS["mixture"]):
        seen: list[torch.Tensor] = []
        generators = [torch.Generator().manual_seed(i) for i in range(64)]
        network = ToyNetwork()
        x_0 = path.initial((64, 12), generators)
        prompts = PROMPTS[:1].expand(64, 2)
        denoise(
            network, network.head, path, SamplingStart(x_0, time_grid(10)), SamplingOptions(),
            prompt_ids=prompts, negative_ids=None, generators=generators,
            on_step=lambda _, x_t, seen=seen: seen.append(x_t),
        )  # fmt: skip
        states = [x_0, *seen]
        assert len(states) == 11
        assert all(not torch.equal(a, b) for a, b in itertools.pairwise(states))


def test_reference_solver_spends_its_first_step() -> None:
    seen: list[torch.Tensor] = []
    x_0 = PATHS["metric"].initial((2, 12), [torch.Generator().manual_seed(100 + i) for i in (0, 1)])
    sample(
        PATHS["metric"], [0, 1], time_grid(5), solver="euler",
        on_step=lambda _, x_t: seen.append(x_t),
    )  # fmt: skip
    assert torch.equal(seen[0], x_0)
    assert not torch.equal(seen[1], x_0)


def test_steps_are_counted_from_one(path: ProbPath) -> None:
    counted: list[int] = []
    sample(path, [0], time_grid(3), on_step=lambda step, _: counted.append(step))
    assert counted == [1, 2, 3]


def test_what_cannot_be_sampled_is_refused(path: ProbPath) -> None:
    for times in (
        torch.tensor([0.0, 0.5, 1.5]),
        torch.tensor([0.0, 0.6, 0.5, 1.0]),
        torch.tensor([1.0]),
        torch.zeros(3, 5),
        torch.tensor([float("nan"), 1.0]),
    ):
        with pytest.raises(UsageError, match="times"):
            sample(path, [0], times)
    with pytest.raises(UsageError, match="`solver` can't be heun"):
        sample(path, [0], time_grid(2), solver="heun")


def test_maskgit_is_for_the_masked_path_alone() -> None:
    with pytest.raises(UsageError, match="maskgit"):
        sample(PATHS["metric"], [0], time_grid(2), solver="maskgit")
    times = frame_times(time_grid(2)[:, None].expand(-1, 3), GRID)
    with pytest.raises(UsageError, match="MaskGIT"):
        sample(PATHS["masked"], [0], times)


def test_a_corrected_mask_path_hides_codes_again_and_maskgit_cannot() -> None:
    path, seen = PATHS["masked"], []
    assert isinstance(path, MaskedPath)
    x_1 = sample(
        path, [0, 1, 2], time_grid(8), solver="integrated", correct=0.8,
        on_step=lambda _, x_t: seen.append(x_t == path.mask_id),
    )  # fmt: skip
    assert any(bool((after & ~before).any()) for before, after in itertools.pairwise(seen))
    assert int(x_1.max()) < K
    with pytest.raises(UsageError, match="maskgit reveals"):
        sample(path, [0], time_grid(2), correct=0.5)
