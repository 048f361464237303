"""SSIM against the formula, written out in float64."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ursa_core.media.ssim import ssim


def written_out(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004: Gaussian windows of 11 pixels, sigma 1.5, mirrored borders."""
    x, y = a.astype(np.float64), b.astype(np.float64)

    def blur(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, (1.5, 1.5, 0), mode="mirror", truncate=5 / 1.5)

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    both = blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    return float((top / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())


@pytest.mark.parametrize("noise", [0, 5, 40])
def test_ssim_is_the_formula(noise: int) -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (2, 17, 24, 3), np.uint8)
    b = np.clip(a + rng.normal(0, noise, a.shape), 0, 255).astype(np.uint8)
    expected = np.mean([written_out(x, y) for x, y in zip(a, b, strict=True)])
    assert ssim(a, b) == pytest.approx(expected, abs=1e-9)
