"""Stamps a second against cutana's vectorised extraction, on one warm mosaic, in one run, on one core.

    pip install cutana
    python benchmarks/throughput/cutana_peer.py [--side 4000] [--sources 8000] [--out RESULTS.jsonl]

Only the extraction is compared (positions, windows, pixels): cutana's resizing, normalisation and writing are
left out, as are our masks, variances and PSFs. First every stamp away from the edge is compared with the
pixels of our own at the origin that cutana reports. CPU seconds, the best of ``--repeats``, in batches of 64
for us and of cutana's default (all at once) for it.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from cutouts import SIZE, best, catalogue, ours, write_survey

from galbatch.bench.timing import arguments, environment, keep
from galbatch.cutouts import open_survey


def main() -> None:
    options = arguments(__doc__, side=4000, sources=8000, repeats=3)
    warnings.simplefilter("ignore")
    from cutana import __version__
    from cutana.cutout_extraction import extract_cutouts_vectorized_from_extension as extract
    from loguru import logger

    logger.remove()
    with tempfile.TemporaryDirectory() as folder:
        tile = open_survey(write_survey(Path(folder), options.side)).tile("b", "0")
        rows = catalogue(tile, options.sources)
        with fits.open(Path(folder) / "sci.fits", memmap=True) as file:
            wcs, size = WCS(file[0].header), np.full(options.sources, SIZE)

            def peer():
                return extract(file[0], wcs, rows["ra"], rows["dec"], size)

            stamps, good, _, _, x0, y0 = peer()
            whole = [
                i
                for i in np.flatnonzero(good)
                if _inside(*(v[i] for v in tile.grid.to_pixel(rows["ra"], rows["dec"])), tile.shape)
            ]
            mine, _ = tile.images["sci"].boxes(y0[whole], x0[whole], SIZE, SIZE)
            np.testing.assert_array_equal(mine, np.stack([stamps[i] for i in whole]))
            theirs = options.sources / best(peer, options.repeats)

            def native():
                found = peer()[0]
                return np.stack([found[i] for i in whole]).astype(np.float32)

            usable = options.sources / best(native, options.repeats)
        own = options.sources / best(lambda: ours(tile, rows), options.repeats)
    result = {
        "benchmark": "cutana_peer",
        "cutana": __version__,
        "sources": options.sources,
        "compared": len(whole),
        "galbatch_per_s": round(own),
        "cutana_per_s": round(theirs),
        "ratio": round(own / theirs, 2),
        "cutana_native_per_s": round(usable),
        "ratio_native": round(own / usable, 2),
        **environment("cpu"),
    }
    keep(result, options.out)


def _inside(x: float, y: float, shape) -> bool:
    """Whether the whole window is on the mosaic: at its edge cutana centres what is left."""
    return SIZE < x < shape[1] - SIZE and SIZE < y < shape[0] - SIZE


if __name__ == "__main__":
    main()
