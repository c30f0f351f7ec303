"""The network: shapes, sizes, cost, and what preconditioning promises."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from galbatch.errors import ModelError
from galbatch.prior.network import Denoiser, NetworkConfig, UNet

TINY = NetworkConfig(widths=(8, 12), blocks=(1, 1), embedding=16, sigma_data=0.2)


def randomised(config=TINY, seed=0):
    """A network whose every layer matters (those that start at zero are filled)."""
    torch.manual_seed(seed)
    model = Denoiser(config)
    for p in model.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return model.eval().requires_grad_(False)


def test_untrained_network_is_the_skip_connection():
    x, sigma = torch.randn(3, 1, 16, 24), torch.tensor([0.01, 0.2, 5.0])
    out = Denoiser(TINY).requires_grad_(False)(x, sigma)
    expected = x * (0.04 / (0.04 + sigma**2)).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(out, expected)


def test_the_middle_of_an_image_does_not_depend_on_its_size():
    model = randomised()
    x = torch.zeros(1, 1, 96, 96)
    x[..., 40:56, 40:56] = torch.randn(16, 16)
    sigma = torch.tensor([0.3])
    large, small = model(x, sigma), model(x[..., 16:80, 16:80].contiguous(), sigma)
    inner = large[..., 16:80, 16:80]
    assert torch.allclose(inner[..., 24:40, 24:40], small[..., 24:40, 24:40], atol=1e-6)
    assert not torch.allclose(inner, small, atol=1e-6), "borders are seen (zero padding)"


def test_shifting_by_the_stride_shifts_the_result():
    model = randomised()
    x = torch.zeros(1, 1, 64, 64)
    x[..., 24:36, 24:36] = torch.randn(12, 12)
    sigma = torch.tensor([0.1])
    a, b = model(x, sigma), model(x.roll((4, 4), (2, 3)), sigma)
    assert torch.allclose(a[..., 20:40, 20:40], b[..., 24:44, 24:44], atol=1e-6)


def test_scale_and_noise_level_are_seen():
    model = randomised()
    x = torch.randn(1, 1, 16, 16)
    a, b = model(x, torch.tensor([0.1])), model(x, torch.tensor([0.11]))
    assert not torch.allclose(a, b)


def test_small_fits_its_budget():
    config = NetworkConfig(widths=(32, 96, 144), blocks=(1, 1, 2))
    with FlopCounterMode(display=False) as counter:
        UNet(config)(torch.randn(1, 3, 64, 64), torch.zeros(1))
    assert counter.get_total_flops() <= 0.4e9
    assert config.multiple_of == 8


def test_widths_and_blocks_must_match():
    with pytest.raises(ModelError, match=r"widths .* and blocks .* same length"):
        NetworkConfig(widths=(8, 16), blocks=(1,))
