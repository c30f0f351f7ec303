"""All real data in one command: every source of every band graded, measured against photutils, and drawn.

    python benchmarks/real/run.py --data shared/data [--out real] [--only hsc-cutout ...] [--mode default]
        [--draws 16] [--again]

Writes to OUT: the runs, ``images.jsonl`` (a line per source and band), ``table.md`` (what it prints), and
``sheets/``: pictures of every image not graded 0 and of some that are. ``--again`` keeps finished runs and
makes the tables and pictures anew.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
from astropy.io import fits
from photometry import photometry
from sheets import view_of, write_sheets

from galbatch import open_run
from galbatch.flags import Level, names_of

SURVEYS = Path(__file__).parent / "surveys"
CATALOGUES = {
    "cosmosweb-f444w": "jwst_cosmosweb/f444w_catalog.parquet",
    "cosmosweb-f115w": "jwst_cosmosweb/f115w_catalog.parquet",
}
HSC_SHAPE = (121, 120)
SNR, OUTSIDE = 5.0, 0.05  # an image counts above this S/N, with no more of its aperture off the image
SHOWN_GOOD = 6


def make_run(name: str, options) -> None:
    """Process one survey into OUT/NAME.run, in this process, on one thread."""
    from galbatch.run import process

    text = (SURVEYS / f"{name}.toml").read_text().replace("DATA", str(options.data.absolute()))
    survey = options.out / f"{name}.toml"
    survey.write_text(text)
    fits.writeto(options.out / "ones.fits", np.ones(HSC_SHAPE, "f4"), overwrite=True)
    if name in CATALOGUES:
        catalogue = options.data / CATALOGUES[name]
    else:
        catalogue = next(p for p in SURVEYS.glob(f"{name}.*") if p.suffix in (".parquet", ".ecsv"))
    choice = {"mode": options.mode, "draws": options.draws, "model": "small", "cluster": "none"}
    process(catalogue, survey, options.out / f"{name}.run", overwrite=True, **choice)


def images_of(name: str, run) -> list[dict]:
    """A dict per source and band: grade, reasons, chi2, S/N, and the fluxes beside the pixels'."""
    out = []
    for row in run.catalog:
        for band in run.bands:
            image = {"data": name, "band": band, "id": str(row["source_id"])}
            image |= {"quality": int(row[f"quality_{band}"]), "chi2": float(row[f"chi2_{band}"])}
            image["reasons"] = names_of(int(row[f"flags_{band}"]), Level.CAUTION)
            image["notes"] = names_of(int(row[f"flags_{band}"]))[len(image["reasons"]) :]
            out.append(image)
            if row["status"] == "failed" or not np.isfinite(image["chi2"]):
                continue
            view = view_of(run, row["source_id"], band)
            neighbour = (view["mask"] & 2) != 0
            found = photometry(view["observed"], view["sigma"], neighbour, view["model"], view["mean"])
            if found is not None:
                flux = float(_value(row[f"flux_njy_p50_{band}"]))
                image |= vars(found) | {"flux": flux / found.matched_njy}
                image["mag"] = 31.4 - 2.5 * float(np.log10(max(flux, 1e-9)))
    return out


def _value(x):
    return getattr(x, "value", x)


def counts(image: dict) -> bool:
    """Whether the target speaks of it: bright enough, unmasked at the middle, inside the image."""
    return image.get("snr", 0) > SNR and not image["centre_masked"] and image["outside"] < OUTSIDE


def table(images: list[dict], seconds: dict[str, float]) -> str:
    """Markdown: a line per data set and band, and the share of good ones."""
    lines = [
        "| data, band | images | 0 | 1 | 2 | reasons | chi2 | model / pixels | flux / aperture | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for key in dict.fromkeys((i["data"], i["band"]) for i in images):
        mine = [i for i in images if (i["data"], i["band"]) == key]
        grades = [sum(i["quality"] == g for i in mine) for g in (0, 1, 2)]
        reasons = Counter(r for i in mine for r in i["reasons"])
        cells = [
            " ".join(key),
            len(mine),
            *grades,
            ", ".join(f"{r} {n}" for r, n in reasons.most_common()) or "-",
            _range([i["chi2"] for i in mine]),
            *(_range([i[k] for i in mine if counts(i)]) for k in ("model", "flux")),
            f"{seconds[key[0]]:.1f}",
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    of = [i for i in images if counts(i)]
    good = sum(i["quality"] == 0 for i in of)
    bad = sum(i["quality"] == 2 for i in of)
    return "\n".join(lines) + (
        f"\n\n{len(images)} images, {len(of)} with S/N above {SNR:g}, unmasked at the middle and inside the "
        f"image: {good} ({good / max(len(of), 1):.0%}) quality 0, {bad} quality 2. Middle value (lowest to "
        "highest); fluxes of the images that count.\n"
    )


def _range(values) -> str:
    values = np.array([v for v in values if np.isfinite(v)])
    return f"{np.median(values):.3f} ({values.min():.3f} to {values.max():.3f})" if len(values) else "-"


def pictures(folder: Path, name: str, run, images: list[dict]) -> None:
    """Sheets of the images of a run that are not graded 0, and of some that are."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob(f"{name}-*.png"):
        old.unlink()
    mine = [i for i in images if i["data"] == name and np.isfinite(i["chi2"])]
    good = [i for i in mine if i["quality"] == 0]
    step = max(1, len(good) // SHOWN_GOOD)
    ids = {str(i): i for i in run.catalog["source_id"].tolist()}
    for kind, chosen in (("not0", [i for i in mine if i["quality"]]), ("good", good[::step][:SHOWN_GOOD])):
        rows = [{"view": view_of(run, ids[i["id"]], i["band"]), "text": _caption(i)} for i in chosen]
        write_sheets(folder, f"{name}-{kind}", rows)


def _caption(image: dict) -> str:
    lines = [f"{image['id']} {image['band']}: {image['quality']}", f"chi2 {image['chi2']:.3f}"]
    if "snr" in image:
        lines += [f"S/N {image['snr']:.0f}, mag {image['mag']:.2f}"]
        lines += [f"model/pixels {image['model']:.3f}", f"flux/aperture {image['flux']:.3f}"]
        lines += [] if counts(image) else ["(does not count)"]
    return "\n".join([*lines, *image["reasons"], *(f"({n.lower()})" for n in image["notes"])])


def main() -> None:
    names = sorted(p.stem for p in SURVEYS.glob("*.toml"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("real"))
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--mode", default="default")
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--again", action="store_true", help="keep finished runs")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    images, seconds = [], {}
    for name in options.only:
        folder = options.out / f"{name}.run"
        if not (options.again and (folder / "catalog.parquet").exists()):
            start = time.process_time()
            make_run(name, options)
            (options.out / f"{name}.seconds").write_text(str(time.process_time() - start))
        run = open_run(folder)
        found = images_of(name, run)
        seconds[name] = float((options.out / f"{name}.seconds").read_text()) / len(found)
        images += found
        pictures(options.out / "sheets", name, run, images)
        print(table(found, seconds), flush=True)
    (options.out / "images.jsonl").write_text("".join(json.dumps(i) + "\n" for i in images))
    (options.out / "table.md").write_text(table(images, seconds))
    print(table(images, seconds))


if __name__ == "__main__":
    main()
