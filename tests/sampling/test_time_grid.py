import pytest
import torch

from ursa_core.errors import ShapeError
from ursa_core.grids import LatentGrid
from ursa_core.sampling.time_grid import frame_times, shift_time, time_grid


def test_grid_runs_from_noise_to_data() -> None:
    assert time_grid(4).tolist() == [0, 0.25, 0.5, 0.75, 1]
    shifted = time_grid(4, 3.0)
    assert shifted.tolist() == pytest.approx([0, 1 / 10, 1 / 4, 1 / 2, 1])
    assert bool((shifted[1:] > shifted[:-1]).all())


def test_shift_of_the_inverse_undoes_it() -> None:
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(shift_time(shift_time(t, 3.0), 1 / 3), t)


def test_frames_pass_their_times_on_to_their_codes() -> None:
    grid = LatentGrid(2, 1, 3)
    times = torch.tensor([[0.0, 0.1], [1.0, 1.0]])
    expected = [[0, 0, 0, 0.1, 0.1, 0.1], [1, 1, 1, 1, 1, 1]]
    torch.testing.assert_close(frame_times(times, grid), torch.tensor(expected))
    with pytest.raises(ShapeError, match="3 frames"):
        frame_times(torch.zeros(2, 3), grid)
