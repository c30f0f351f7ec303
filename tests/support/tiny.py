"""A network of a few thousand weights and what its card says: for tests of models and of training."""

import tomli_w
import torch

from galbatch.prior.network import Denoiser, NetworkConfig

NETWORK = NetworkConfig(widths=(8, 12), blocks=(1, 1), embedding=16, sigma_data=0.2)
CARD = {
    "name": "tiny", "target_fwhm_pix": 2.0, "sigma_data": 0.2, "max_sd": 2.0, "network": NETWORK.to_dict(),
    "multiple_of": NETWORK.multiple_of, "spectrum": {"k": [0.0, 0.5], "power": [4.0, 0.1]},
    "residual_spectrum": {"k": [0.0, 0.5], "sigma": [0.1, 1.0], "power": [[0.1, 0.1], [1.0, 0.1]]},
}  # fmt: skip


def network(seed: int = 0, joint: bool = False, config: NetworkConfig = NETWORK) -> Denoiser:
    """A network whose every layer matters (those that start at zero are filled)."""
    torch.manual_seed(seed)
    model = Denoiser(config, joint)
    for p in model.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return model.eval().requires_grad_(False)


def training_toml(data: dict, network: dict | None = None, **training: object) -> str:
    """The configuration of a training of a few steps, on ``data``."""
    layers = {"widths": [8, 12], "blocks": [1, 1], "embedding": 16} | (network or {})
    few = {"steps": 4, "batch": 4, "sizes": [32], "size_shares": [1.0], "validate_every": 2} | training
    data = {"origin": "mine", "held_out": 0.3} | data
    return tomli_w.dumps({"network": layers, "training": few, "data": [data]})
