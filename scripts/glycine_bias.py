"""A plugin with the energies of the proof: E = -V, minus the bias on the ends of a chain.

Aligned with E a model of MD under U + V samples MD under U. On-policy alignment computes E for the
model's own samples, so it needs it as an energy function.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import openmm
from openmm import app

from make_peptide_md import SETS
from protenix_eba.energy.bias import EndBias
from protenix_eba.energy.functions import ENERGIES
from protenix_eba.energy.protocol import EnergyProtocol
from protenix_eba.plugin_api import Plugin

NAME = "minus_glycine_bias"
# Of the shipped tripeptides.
FOLDED = "minus_folded_bias"


def minus_bias(topology: app.Topology, protocol: EnergyProtocol, constrained: bool) -> Any:
    """Return a System whose energy is minus the bias of the set `biased`, kJ/mol."""
    return minus(SETS["biased"].bias, topology)


def minus_folded_bias(topology: app.Topology, protocol: EnergyProtocol, constrained: bool) -> Any:
    """Return a System whose energy is minus the bias of the set `folded`, kJ/mol."""
    return minus(SETS["folded"].bias, topology)


def minus(bias: EndBias | None, topology: app.Topology) -> Any:
    """Return a System whose energy is minus a bias."""
    assert bias is not None
    system = openmm.System()
    for atom in topology.atoms():
        system.addParticle(atom.element.mass)
    system.addForce(replace(bias, depth_kj_mol=-bias.depth_kj_mol).force(topology))
    return system


def register() -> None:
    """Register the energy functions."""
    ENERGIES.register(NAME)(minus_bias)
    ENERGIES.register(FOLDED)(minus_folded_bias)


plugin = Plugin("glycine_bias", register=register)
