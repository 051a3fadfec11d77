"""Weights of ANI potentials for tests: the shipped ones, and a small model in the same files."""

from __future__ import annotations

import bz2
import itertools
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from protenix_eba.energy.ani_weights import AniWeights, read_ani_weights

# A model of two elements and two networks, in NeuroChem's layout, with widths of its own.
SHAPE = {
    "Rcr": [4.0],
    "Rca": [3.0],
    "EtaR": [9.0],
    "ShfR": [0.8, 1.6, 2.4],
    "Zeta": [5.0],
    "ShfZ": [0.4, 1.9],
    "EtaA": [2.0],
    "ShfA": [0.9, 1.7],
}
LONE_ATOM = {"H": -0.5, "O": -75.0}
SIZES = {"H": (18, 5, 1), "O": (18, 4, 3, 1)}  # 2 x 3 radial terms and 3 x 2 x 2 angular ones


def write_model(folder: Path, networks: int = 2) -> Path:
    """Write random weights as NeuroChem would."""
    rng = np.random.default_rng(7)
    folder.mkdir()
    lines = ["TM = 1"]
    for key, values in SHAPE.items():
        text = ",".join(f"{value:.7e}" for value in values)
        lines.append(f"{key} = {text}" if key in ("Rcr", "Rca") else f"{key} = [{text}]")
    (folder / "own.params").write_text("\n".join([*lines, "Atyp = [H,O]", ""]))
    rows = [f"{element},{i}={energy}" for i, (element, energy) in enumerate(LONE_ATOM.items())]
    (folder / "sae_linfit.dat").write_text("\n".join(rows))
    for member, (element, sizes) in itertools.product(range(networks), SIZES.items()):
        place = folder / f"train{member}" / "networks"
        place.mkdir(parents=True, exist_ok=True)
        text = f"inputsize={sizes[0]};\natom_net {element} $\n"
        for number, (inside, outside) in enumerate(itertools.pairwise(sizes), 1):
            names = [f"ANN-{element}.nnf-l{number}.{kind}param" for kind in "wb"]
            for name, count in zip(names, (inside * outside, outside), strict=True):
                values = rng.normal(size=count, scale=0.4).astype("<f4")
                (place / name).write_bytes(values.tobytes())
            text += (
                f"layer [\nnodes={outside};\nactivation={6 if outside == 1 else 9};\n"
                f"blocksize={inside};\nweights=FILE:{names[0]}[{inside * outside}];\n"
                f"biases=FILE:{names[1]}[{outside}];\n]\n"
            )
        packed = bz2.compress(f"{text}$\x00".encode())
        (place / f"ANN-{element}.nnf").write_bytes(f"{len(packed)}=\n".encode() + packed)
    return folder


def shipped(name: str) -> AniWeights:
    """Return the weights that torchani brought; the test is skipped without."""
    spec = find_spec("torchani")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if list(Path(folder, "resources", f"{name}_8x").glob("train0/networks/*.wparam")):
            return read_ani_weights(Path(folder, "resources", f"{name}_8x"))
    pytest.skip("needs the extra ml")
