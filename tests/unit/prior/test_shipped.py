"""What ships as base: size, card, and that rounding its weights to float16 left its loss as it was."""

import json

import numpy as np
import pytest
from safetensors import safe_open

from galbatch.prior.card import Card, cross_correlation
from galbatch.prior.folder import NAMES, load_weights, model_folder
from galbatch.sampler.schedule import MODES, evaluations
from galbatch.simulate.galaxies import simulate_galaxies
from galbatch.training.cubes import Cube, CubeLibrary, CubeSource
from galbatch.training.held_out import HeldOutLoss, JointLoss
from galbatch.training.library import Library, SourceImage
from galbatch.training.stamps import StampConfig, StampSource

LARGEST_FILE = 25e6
# loss of the weights before they were rounded, on the stamps of the test below; rounding to bfloat16 moves
# the last two by 4e-4
LOSS_BEFORE = {"0.015": 0.0797448, "0.15": 0.0247965, "1.5": 0.00358365}


@pytest.mark.parametrize("name", NAMES)
def test_cards_are_complete_and_files_small(name):
    folder = model_folder(name)
    card = Card.load(folder / "card.json")
    assert card.name == name and card.training["hours"] > 0.05 and len(card.limits) >= 6
    assert {"origin", "credit", "licence", "weight", "trained", "held_out"} <= set(card.data[0])
    assert len(card.residual_spectrum["sigma"]) == 18 and len(card.spectrum["k"]) == 24
    assert max(path.stat().st_size for path in folder.iterdir()) < LARGEST_FILE
    study = json.loads((folder / "validation.json").read_text())
    assert (study["mode"], study["sha256"]) == ("default", card.sha256)
    assert study["numbers"]["galaxies"] == 255
    mode = MODES["default"]
    fewest, most = (evaluations(mode, guided, bright=False) for guided in (mode.fewest, mode.most))
    assert fewest <= study["numbers"]["evaluations"] <= most


def test_base_is_better_than_small_on_the_same_held_out_stamps():
    rounding = Card.load(model_folder("base") / "card.json").metrics["rounding"]
    for before, after, small in zip(rounding["float32"], rounding["float16"], rounding["small"], strict=True):
        assert abs(after / before - 1) < 1e-4 and after < small


def test_rounding_base_to_float16_leaves_its_held_out_loss():
    folder = model_folder("base")
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert str(file.get_tensor("net.first.weight").dtype) == "torch.float16"
    images, _ = simulate_galaxies(4, 2_000_000)
    library = Library([SourceImage(image[0], str(i), "mock") for i, image in enumerate(images)])
    stamps = StampSource(library, StampConfig(target_fwhm_pix=2.0)).draw(4, 64, (7,))
    model = load_weights(folder, Card.load(folder / "card.json")).eval()
    loss = HeldOutLoss(stamps, sigmas=tuple(float(s) for s in LOSS_BEFORE))(model)
    assert loss == pytest.approx(LOSS_BEFORE, rel=1e-4)


def test_bands_of_small_help_each_other_on_galaxies_never_seen():
    """A quarter off the squared error of four bands; what is asked here is half of that."""
    folder = model_folder("small")
    card = Card.load(folder / "card.json")
    model = load_weights(folder, card).eval()
    wavelengths = (0.3, 0.5, 0.8, 1.6)
    images, _ = simulate_galaxies(10, 2_000_100, wavelengths_um=wavelengths)
    cubes = [Cube(image, np.array(wavelengths), str(i), "mock") for i, image in enumerate(images)]
    loss = JointLoss(CubeSource(CubeLibrary(cubes)), bands=(4,), sigmas=(0.05, 0.5), n=10, size=48)
    together, alone = loss(model), loss(model, alone=True)
    for key, value in alone.items():
        assert together[key] < 0.875 * value, (key, together[key], value)
    rho = cross_correlation(card.cross, np.log(wavelengths))
    assert card.joint == 7 and np.linalg.eigvalsh(rho).min() > 0 and rho[0, 1] > rho[0, 3] > 0.5
