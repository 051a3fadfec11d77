"""Protein domains to train and test the C-alpha score network with: an npz file with splits.

    apt-get download promod3-data && dpkg -x promod3-data_*.deb promod3
    python scripts/make_domain_set.py --out data/domains.npz \\
        --promod3 promod3/usr/share/promod3/loop_data/structure_db.dat \\
        --cath cath-domain-list.txt

or from any folder of PDB and mmCIF files:

    python scripts/make_domain_set.py --structures my_structures --cath cath-domain-list.txt \\
        --out data/domains.npz

Chains are named 1abc.A, after the database's entry or the file 1abc.cif. The list of topologies is
CATH's `cath-domain-list.txt`, or a JSON file with `cath_nodes`, such as the chain splits of
Ingraham et al. (2019). Only chains with exactly one topology are taken, so that no fold is in two
splits.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import click

from protenix_eba.core.errors import UserError

PATH = click.Path(path_type=Path)


@click.command(help=(__doc__ or "").replace("\n\n", "\n\n\b\n"))
@click.option("--promod3", type=PATH, help="ProMod3's database of structures, structure_db.dat.")
@click.option("--structures", type=PATH, help="Folder of PDB or mmCIF files, instead of --promod3.")
@click.option("--cath", type=PATH, required=True, help="File with the CATH topologies of chains.")
@click.option("--out", type=PATH, required=True, help="npz file to write.")
@click.option("--shortest", default=40, show_default=True, help="Fewest residues of a domain.")
@click.option("--longest", default=256, show_default=True, help="Most residues of a domain.")
@click.option(
    "--n-train", default=None, type=int, help="Number of domains to train on.  [default: all]"
)
@click.option("--n-valid", default=134, show_default=True, help="Number of domains to validate on.")
@click.option("--n-test", default=200, show_default=True, help="Number of domains to test on.")
@click.option("--seed", default=0, show_default=True, help="Seed of the random splits.")
def main(
    promod3: Path | None,
    structures: Path | None,
    cath: Path,
    out: Path,
    shortest: int,
    longest: int,
    n_train: int | None,
    n_valid: int,
    n_test: int,
    seed: int,
) -> None:
    import ebmfold_domain_sets
    from protenix_eba.ebmfold.domains import SPLITS, write_domains

    left_out: Counter[str] = Counter()
    if promod3 is not None and structures is None:
        chains = ebmfold_domain_sets.promod3_chains(promod3)
    elif structures is not None and promod3 is None:
        chains = ebmfold_domain_sets.folder_chains(structures, left_out)
    else:
        raise UserError("expected either --promod3 or --structures")
    topologies = ebmfold_domain_sets.read_topologies(cath)
    selection = ebmfold_domain_sets.Selection(shortest, longest)
    taken = ebmfold_domain_sets.select_domains(chains, topologies, selection, left_out)
    made = ebmfold_domain_sets.split_by_topology(taken, n_valid, n_test, seed, n_train)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_domains(out, made)
    for split in SPLITS:
        part = [domain for domain in made if domain.split == split]
        n_topologies = len({domain.topology for domain in part})
        print(f"{split:5} {len(part):6,} domains of {n_topologies:5,} topologies")
    for reason, number in left_out.most_common():
        print(f"left out {number:,}: {reason}")
    print(f"wrote {out}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
