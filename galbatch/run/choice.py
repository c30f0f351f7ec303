"""Which model a run uses: settled before it begins, kept when it goes on, and said at the start."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from galbatch.config import ExecutionSettings, RunSettings
from galbatch.interfaces import Denoiser


def settle_model(settings: RunSettings, execution: ExecutionSettings, begun: dict[str, Any]) -> RunSettings:
    """The settings with the model 'auto' settled: the one that a run began with when it goes on (``begun``:
    its manifest), else the shipped one for this machine, whose card or lack of one decides for all workers.
    """
    if settings.model != "auto":
        return settings
    from galbatch.prior import choose_model

    here = choose_model("auto", "cpu" if execution.cluster == "local" else "auto")
    return dataclasses.replace(settings, model=begun.get("config", {}).get("model", here))


def said_of_model(asked: str, settings: RunSettings, prior: Denoiser, going_on: bool) -> Iterator[str]:
    """Lines on the model of a run: which and why, and whether its intervals are calibrated. ``asked``: as the
    user named it, before ``settle_model``."""
    name, mode = prior.spec.name, settings.mode
    why = "" if asked != "auto" else ", with which the run began" if going_on else _reason(settings.model)
    yield f"model: {name}{why}"
    if mode not in prior.spec.calibration:
        remedy = (
            ""
            if settings.model == "object"
            else f" Make it: galbatch model calibrate {settings.model} --mode {mode}"
        )
        yield (
            f"model {name} has no calibration for mode {mode}: intervals are those of the draws, and no "
            f"source is better than quality 1 (UNCALIBRATED).{remedy}"
        )


def _reason(name: str) -> str:
    if name == "base":
        return ", as this machine has a CUDA card (auto); without one it would be small"
    return ", as this machine computes on its CPU (auto); --model base has better intervals and is slower"
