"""The network: shapes, sizes, cost, and what preconditioning promises."""

import pytest
import torch
from tiny import NETWORK as TINY
from tiny import network as randomised
from torch.utils.flop_counter import FlopCounterMode

from galbatch.errors import ModelError
from galbatch.prior.network import Denoiser, NetworkConfig, UNet


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


def test_small_fits_its_budget():
    config = NetworkConfig(widths=(32, 96, 144), blocks=(1, 1, 2))
    with FlopCounterMode(display=False) as counter:
        UNet(config)(torch.randn(1, 3, 64, 64), torch.zeros(1))
    assert counter.get_total_flops() <= 0.4e9
    assert config.multiple_of == 8


def bands_of(n, c, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(n, c, 16, 24, generator=generator),
        torch.rand(n, c, generator=generator) + 0.05,
        torch.randn(n, c, generator=generator),
    )


def test_a_joint_network_begins_as_the_one_of_single_bands():
    torch.manual_seed(0)
    model = Denoiser(TINY, joint=True).requires_grad_(False)
    torch.nn.init.normal_(model.net.last.weight)
    x, sigma, bands = bands_of(3, 4)
    apart = model(x.reshape(12, 1, 16, 24), sigma.reshape(12)).reshape(x.shape)
    assert torch.equal(model(x, sigma, bands), apart)


def test_bands_see_each_other_in_any_order_and_galaxies_do_not():
    model = randomised(joint=True)
    x, sigma, bands = bands_of(2, 5)
    out, order = model(x, sigma, bands), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(model(x[:, order], sigma[:, order], bands[:, order]), out[:, order])
    for changed in (
        (x + torch.eye(5)[0].reshape(1, 5, 1, 1), sigma, bands),
        (x, sigma * torch.tensor([2.0, 1, 1, 1, 1]), bands),
        (x, sigma, bands + torch.tensor([1.0, 0, 0, 0, 0])),
    ):
        others = model(*changed)[:, 1:]
        assert not torch.allclose(others, out[:, 1:], atol=1e-4), "the other bands see the change in one"
    torch.testing.assert_close(model(x, sigma, bands + 0.7), out, atol=1e-5, rtol=1e-5)  # only differences
    torch.testing.assert_close(model(x[1:], sigma[1:], bands[1:]), out[1:])


def test_mixing_costs_less_than_fifteen_per_cent():
    model = Denoiser(NetworkConfig(widths=(32, 96, 144), blocks=(1, 1, 2)), joint=True)
    costs = []
    for bands in (None, torch.zeros(1, 4)):
        with FlopCounterMode(display=False) as counter:
            model.net(torch.randn(4, 3, 64, 64), torch.zeros(4), bands)
        costs.append(counter.get_total_flops())
    assert 1.0 < costs[1] / costs[0] < 1.15


def test_widths_and_blocks_must_match():
    with pytest.raises(ModelError, match=r"widths .* and blocks .* same length"):
        NetworkConfig(widths=(8, 16), blocks=(1,))
