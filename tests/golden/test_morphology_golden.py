"""One galaxy, every number, to 1e-5. Regenerate after a deliberate change of a definition with

python tests/golden/test_morphology_golden.py
"""

import json
from pathlib import Path

import numpy as np
import pytest

from galbatch.morphology import QUANTITIES, measure

GOLDEN = Path(__file__).with_name("morphology.json")


def galaxy():
    """A disc with a bar of clumps and reproducible noise, made without a random generator."""
    y, x = np.mgrid[:56, :56].astype(float)
    image = 50 * np.exp(-np.hypot(x - 27.3, 1.4 * (y - 28.1)) / 4)
    for k in range(5):
        image += (6 + k) * np.exp(-((x - 20 - 3.3 * k) ** 2 + (y - 24 - 1.7 * k) ** 2) / 3)
    noise = np.sin(12.9898 * x + 78.233 * y) * 43758.5453
    return image + 0.8 * (noise - np.floor(noise) - 0.5)


def measured():
    image = galaxy()
    segment = (np.hypot(*(np.mgrid[:56, :56] - 28.0)) < 15).astype(int)
    sigma = np.full(image.shape, 0.23)
    observed = measure(image[None], 0.03, segmap=segment, sigma=sigma)[0]
    fixed = dict(sky_sigma=0.0, detection_threshold=0.23, outlier_sigma=0.0, psf_fwhm_pix=2.0)
    draw = measure(image[None], 0.03, segmap=segment, sigma=sigma, **fixed)[0]
    return {
        kind: {name: float(row[name]) for name in QUANTITIES} | {"flags": int(row["flags"])}
        for kind, row in (("observed", observed), ("draw", draw))
    }


@pytest.fixture(scope="module")
def now():
    return measured()


@pytest.mark.parametrize("kind", ["observed", "draw"])
def test_every_number(now, kind):
    golden = json.loads(GOLDEN.read_text())[kind]
    assert set(golden) == set(now[kind])
    for name, value in golden.items():
        value = np.nan if value is None else value
        np.testing.assert_allclose(now[kind][name], value, rtol=1e-5, atol=1e-7, err_msg=name)


if __name__ == "__main__":
    table = {kind: {k: None if v != v else v for k, v in row.items()} for kind, row in measured().items()}
    GOLDEN.write_text(json.dumps(table, indent=1) + "\n")
