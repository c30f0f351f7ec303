"""The table of benchmarks/joint/run.py: python benchmarks/joint/table.py FILE.jsonl"""

import json
import sys

import numpy as np


def of(rows, how, key):
    return [np.array(r[how][key]) for r in rows]


def ratio(rows, pick):
    """Geometric mean over sources of joint over separate NMSE in the band that ``pick`` names, and its error,
    a factor."""
    logs = np.array([np.log(r["joint"]["nmse"][pick(r)] / r["separate"]["nmse"][pick(r)]) for r in rows])
    return f"{np.exp(logs.mean()):.2f} x/: {np.exp(logs.std(ddof=1) / np.sqrt(len(logs))):.2f}"


def intervals(rows):
    """Widths of the colours in an aperture as they are, and with each method's widths scaled by what makes
    68% of its own truths lie inside; its error from sources drawn again."""

    def ratios(chosen):
        width, scale = [], []
        for how in ("joint", "separate"):
            w, e = (np.concatenate(of(chosen, how, key)) for key in ("colour_width", "colour_error"))
            width.append(np.log(w).mean())
            scale.append(np.quantile(np.abs(e) / w, 0.6827))
        return np.exp(width[0] - width[1]), np.exp(width[0] - width[1]) * scale[0] / scale[1]

    rng = np.random.default_rng(0)
    again = [ratios([rows[i] for i in rng.integers(0, len(rows), len(rows))])[1] for _ in range(300)]
    raw, equal = ratios(rows)
    return f"as they are {raw:.2f}, at equal coverage {equal:.2f} +- {np.std(again):.2f}"


def pixels_of(rows):
    """The same of pixels, with the rms of their errors: geometric means over pairs of bands."""
    one, two = (
        np.concatenate([np.array(m).T for m in of(rows, how, "map")]) for how in ("joint", "separate")
    )
    known = np.isfinite(one).all(1) & np.isfinite(two).all(1)
    if not known.any():
        return "too faint"
    logs = np.log(one[known] / two[known])
    values = (logs[:, 0], logs[:, 1], logs[:, 0] + logs[:, 2])
    texts = [f"{np.exp(v.mean()):.2f} x/: {np.exp(v.std() / np.sqrt(len(v))):.2f}" for v in values]
    return f"width {texts[0]}, rms error {texts[1]}, width at equal coverage {texts[2]}"


def covered(rows, how, key):
    """Share of ranks within the central 68%, in per cent."""
    u = np.concatenate(of(rows, how, key))
    return f"{100 * (np.abs(u - 0.5) < 0.34).mean():.0f}"


def main():
    lines = [json.loads(line) for path in sys.argv[1:] for line in open(path)]
    for name in dict.fromkeys(r["set"] for r in lines):
        rows = [r for r in lines if r["set"] == name]
        bands = range(len(rows[0]["sn"]))
        print(f"\n{name}: {len(rows)} sources")
        print("  NMSE joint / separate: blurriest", ratio(rows, lambda r: -1), "| faintest",
              ratio(rows, lambda r: int(np.argmin(r["sn"]))), "| by band",
              ", ".join(ratio(rows, lambda r, b=b: b) for b in bands))  # fmt: skip
        print("  68% intervals of colours, joint / separate:", intervals(rows))
        print("  colours of pixels, joint / separate:", pixels_of(rows))
        for how in ("joint", "separate"):
            pixels = 100 * np.mean(of(rows, how, "pixels68"))
            inside = [f"{key} {covered(rows, how, key)}" for key in ("flux", "r_half", "sizes", "colour")]
            print(f"  {how}: inside 68%: pixels {pixels:.0f},", ", ".join(inside))
            chi2, spent, seconds = (np.mean(of(rows, how, k)) for k in ("chi2", "evaluations", "seconds"))
            print(f"    chi2 {chi2:.2f} | evaluations {spent:.1f} | CPU s {seconds:.1f}")
            if "found" in rows[0][how]:
                print("    found, by band:", np.round(np.median(of(rows, how, "found"), 0), 2))
        for how in ("joint", "separate"):
            flags = [[[f for f in b if f not in ("PRIOR_DRIVEN",)] for b in r[how]["flags"]] for r in rows]
            print(f"    {how} flagged by band:", [sum(bool(f[b]) for f in flags) for b in bands])


if __name__ == "__main__":
    main()
