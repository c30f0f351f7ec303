"""The peers of the referee. ``PEERS``: name -> ``Peer``; each peer takes (problem, budget, knob, draws, seed)
and gives images (draws, h, w) at the target PSF in the unit of the data, or one where it has no draws.

Its one knob is tuned by the caller on other galaxies against the truth. Peers on galbatch's network have a
budget of evaluations; the others have networks of their own or none, and count none.

    pip install "galbatch[bench]"
    pip install starred-astro==1.7.1 nifty8 scarlet2==0.5.1 galaxygrad==0.2.1
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import with_azula
import with_daps
import with_deepinv
import with_scarlet2
import with_starred


@dataclass(frozen=True)
class Peer:
    """``needs``: modules; ``knobs``: the values that are tried."""

    needs: tuple[str, ...]
    knobs: tuple
    sample: Callable

    @property
    def missing(self) -> list[str]:
        return [name for name in self.needs if find_spec(name) is None]


AZULA, DEEPINV, STARRED = ("azula",), ("deepinv",), ("starred", "nifty8")
PEERS = {
    "azula DPS": Peer(AZULA, (3.0, 10.0, 30.0, 100.0), with_azula.azula_dps),
    "azula DiffPIR": Peer(AZULA, (0.3, 1.0, 3.0), with_azula.azula_diffpir),
    "azula MMPS": Peer(AZULA, (1, 2, 4), with_azula.azula_mmps),
    "DAPS": Peer((), (0.5, 1.0), with_daps.daps),
    "PnP-DM": Peer((), (0.3, 1.0, 3.0), with_daps.pnp_dm),
    "deepinv DPS": Peer(DEEPINV, (0.3, 1.0, 3.0, 10.0), with_deepinv.deepinv_dps),
    "deepinv DiffPIR": Peer(DEEPINV, (1.0, 3.0, 7.0, 20.0), with_deepinv.deepinv_diffpir),
    "deepinv moment matching": Peer(DEEPINV, (1, 2, 4), with_deepinv.deepinv_moments),
    "STARRED correlated field": Peer(STARRED, ((True, -3.0, -2.0),), with_starred.correlated_field),
    "STARRED starlets": Peer(STARRED[:1], ((1.0, 1.0), (3.0, 1.0)), with_starred.starlets),
    "scarlet2": Peer(
        ("scarlet2", "galaxygrad"), ((0.1, 0.1), (0.1, 0.01), (0.01, 0.01)), with_scarlet2.best_image
    ),
}
