"""Pieces with an independent answer: apertures against photutils, the Sersic profile against astropy, the
disk cache."""

import os
import subprocess
import sys

import numba
import numpy as np
import pytest
from astropy.modeling.models import Sersic2D

from galbatch.morphology.kernels import jit
from galbatch.morphology.kernels.apertures import inside, new_room, outline_of, running_sums
from galbatch.morphology.kernels.sersic_steps import propose_models

N = 40


@numba.njit(error_model="numpy")
def aperture_sum(image, x, y, a, elongation, theta):
    sums = running_sums(image)
    tables, outline = (image, sums, image, sums), outline_of(x, y, elongation, theta)
    return inside(tables, outline, a, new_room(*image.shape))[0]


@pytest.mark.parametrize("elongation", [1.0, 1.7, 4.0])
@pytest.mark.parametrize("a", [0.8, 2.5, 6.0, 17.0])
def test_aperture_sums_are_exact_to_a_thousandth(a, elongation):
    from photutils import aperture

    rng = np.random.default_rng(0)
    image = rng.uniform(0.5, 1.5, (N, N))
    for _ in range(5):
        x, y, theta = *rng.uniform(12, 28, 2), rng.uniform(-2, 2)
        exact = aperture.EllipticalAperture((x, y), a, a / elongation, theta=theta).do_photometry(image)[0][0]
        assert aperture_sum(image, x, y, a, elongation, theta) == pytest.approx(
            exact, rel=4e-3 if a < 1 else 1e-3
        )


def test_aperture_over_the_edge():
    from photutils import aperture

    image = np.ones((N, N))
    exact = aperture.CircularAperture((1.0, 38.0), 9.0).do_photometry(image)[0][0]
    assert aperture_sum(image, 1.0, 38.0, 9.0, 1.0, 0.0) == pytest.approx(exact, rel=1e-3)


def pack(amplitude, r_e, n, x, y, e, theta):
    shape = e * np.cos(2 * theta), e * np.sin(2 * theta)
    return np.array([amplitude, np.log(r_e * np.sqrt(1 - e)), np.log(n), x, y, *shape])


def models(p):
    """The model and its seven derivatives, (8, N, N), without averaging inside 2.5 pixels of the centre."""
    p = np.ascontiguousarray(p)[None]
    images = np.empty((1, N, 8, N))
    propose_models(
        np.zeros(1, np.int64), p, p.copy(), np.zeros((1, 7, 7)), np.zeros((1, 7)), np.full(1, np.nan), images
    )
    return images[0].transpose(1, 0, 2)


Y, X = np.mgrid[:N, :N].astype(float)
PARAMETERS = [
    (2.0, 6.0, 1.0, 19.3, 20.6, 0.3, 0.7),
    (1.0, 4.0, 4.0, 18.0, 22.0, 0.0, 0.0),
    (3.0, 9.0, 0.4, 21.0, 19.0, 0.8, 2.5),
]


@pytest.mark.parametrize("values", PARAMETERS)
def test_sersic_profile_is_that_of_astropy(values):
    amplitude, r_e, n, x, y, e, theta = values
    away = np.hypot(X - x, Y - y) > 5
    np.testing.assert_allclose(
        models(pack(*values))[0][away], Sersic2D(amplitude, r_e, n, x, y, e, theta)(X, Y)[away], rtol=1e-6
    )


@pytest.mark.parametrize("values", PARAMETERS[::2])
@pytest.mark.parametrize("k", range(7))
def test_sersic_derivatives(values, k):
    p, h = pack(*values), 1e-5
    up, down = p.copy(), p.copy()
    up[k] += h
    down[k] -= h
    numeric = (models(up)[0] - models(down)[0]) / (2 * h)
    np.testing.assert_allclose(models(p)[k + 1], numeric, atol=1e-6 * np.abs(numeric).max())


def test_cache_stamp_follows_every_kernel_file(tmp_path, monkeypatch):
    for name in ("jit.py", "one.py", "two.py"):
        (tmp_path / name).write_text(f"# {name}\n")
    monkeypatch.setattr(jit, "__file__", str(tmp_path / "jit.py"))
    before = jit._content_stamp()
    assert jit._content_stamp() == before
    (tmp_path / "two.py").write_text("# 2\n")
    assert jit._content_stamp() != before


def test_private_detail_of_numba_that_the_cache_relies_on():
    from galbatch.morphology.kernels.engine import measure_range

    assert measure_range._cache._cache_file._source_stamp == jit._STAMP


def test_a_kernel_called_from_python_says_so():
    aperture_sum(np.ones((N, N)), 20.0, 20.0, 3.0, 1.0, 0.0)
    with pytest.raises(TypeError, match="kernel outline_of was called from Python"):
        outline_of(20.0, 20.0, 1.0, 0.0)


def test_the_second_of_two_processes_waits_for_the_first_and_compiles_nothing(tmp_path):
    """Both start at once on an empty cache; one of them compiles, the other loads."""
    (tmp_path / "slow_entry.py").write_text(
        "import time\nfrom galbatch.morphology.kernels.jit import entry, kernel\n"
        "@kernel\ndef one(x):\n    return x + 1.0\n"
        "@entry\ndef two(x):\n    return one(x) * 2.0\n"
    )
    program = (
        "import time, slow_entry as m\n"
        "from numba.core.compiler import Compiler\n"
        "real = Compiler.compile_extra\n"
        "def slow(self, f):\n    time.sleep(2.0)\n    return real(self, f)\n"
        "Compiler.compile_extra = slow\n"
        "assert m.two(1.0) == 4.0\nprint(sum(m.two.stats.cache_misses.values()))\n"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program], env=environment, cwd=tmp_path, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    assert sorted(int(p.communicate(timeout=120)[0]) for p in both) == [0, 1]
