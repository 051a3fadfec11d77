"""Items of the loader: K conformers of one sequence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from protenix_eba.host.embeddings import TrunkEmbeddings
from protenix_eba.training.data.crop import atoms_of, crop_features, renumbered

__all__ = ["Item"]


@dataclass(frozen=True)
class Item:
    """K conformers of one sequence, or of a crop of it.

    Attributes:
        target: Name.
        frames: Replica and frame of each conformer.
        features: Protenix's input features, those that the diffusion module reads.
        embeddings: Embeddings of the frozen trunk.
        coordinates: `[K, N_atom, 3]` in angstrom.
        mask: `[K, N_atom]`.
        energy_kj_mol: `[K]` float64, of the whole protein.
        keep: `[K]` bool, false where the energy is an outlier of its target's.
        sampled: `[K]` bool, true for the model's own samples, false for MD.
        n_residues: N of the whole protein, which the energies are of.
        n_tokens: Number of tokens of the crop.
        partners: `[N_atom]` of each atom that with which it may change places
            (`symmetry.symmetric_partners`), or None to keep all in their places.
        problem: Why the coordinates could not be read, which are NaN then; the frames may be any
            of the target, if it could not be clustered.
    """

    target: str
    frames: tuple[tuple[int, int], ...]
    features: dict[str, Any]
    embeddings: TrunkEmbeddings
    coordinates: Tensor
    mask: Tensor
    energy_kj_mol: Tensor
    keep: Tensor
    sampled: Tensor
    n_residues: int
    n_tokens: int
    partners: Tensor | None = None
    problem: str = ""

    def crop(self, token_index: Tensor) -> Item:
        """Return the conformers with some of their residues.

        Args:
            token_index: `[n]` token numbers, strictly ascending.
        """
        atoms = atoms_of(self.features, token_index)
        partners = self.partners
        if partners is not None:
            partners = renumbered(partners[atoms], atoms, len(partners))
        return replace(
            self,
            features=crop_features(self.features, token_index),
            embeddings=self.embeddings.crop(token_index),
            coordinates=self.coordinates[:, atoms],
            mask=self.mask[:, atoms],
            n_tokens=len(token_index),
            partners=partners,
        )
