"""Data of the package `bioemu-benchmarks`: where they are, and whether they are unchanged.

The user downloads them (`pip download --no-deps bioemu-benchmarks`, then unpack the wheel; or a
clone of github.com/microsoft/bioemu-benchmarks). Its code and its pins are not needed.
"""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import Final

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import require_file, sha256_of_file

__all__ = ["DATA", "LICENCE", "digest", "find_part", "test_cases"]

LICENCE: Final = (
    "bioemu-benchmarks 0.0.2.post1 (Lewis et al., Science 2025, doi:10.1126/science.adv9817), "
    "10 MB; its data are under CDLA-Permissive-2.0"
)
_MULTICONF: Final = "multiconf_benchmark_0.1"
# Each part's folder below `assets`, and the digest of its files in version 0.0.2.post1.
DATA: Final[dict[str, tuple[str, str]]] = {
    "ood60": (
        f"{_MULTICONF}/ood60",
        "e76869a409a75774e9836b27fc9f58d94c27199ad9ecf5ef22c9cfcf967b28d7",
    ),
    "oodval": (
        f"{_MULTICONF}/oodval",
        "9fea9e64582bf39e16e44e4de35f3d569bf78151a634ea87a24fdb6283672fda",
    ),
    "domainmotion": (
        f"{_MULTICONF}/domainmotion",
        "52be19a406c68f50762727d44a9a8221928a610fdce47497fa7d5f43047de0e3",
    ),
    "crypticpocket": (
        f"{_MULTICONF}/crypticpocket",
        "b078ef97456430e6f40bfc9ab70169832de9289cea00d1e883bf01a2457fe276",
    ),
    "localunfolding": (
        f"{_MULTICONF}/localunfolding",
        "0d75800c878d21078e63d26e096cca1c2a157ce17a8c524d241dfd6dce50b377",
    ),
    "md_emulation": (
        "md_emulation_benchmark_0.1/md_emulation",
        "6ee157097fe0afeed237fb6dcb28efbeb6ddc8c9f4345e8a33cf401f93f635f2",
    ),
    "folding_free_energies": (
        "folding_free_energies_benchmark_0.1/folding_free_energies",
        "c82951c2bb77ab402ac78bd10b25345ad6b54613d8f5f2a438431035c9f55e8e",
    ),
}
_HINT: Final = (
    "unpack the wheel of bioemu-benchmarks (pip download --no-deps bioemu-benchmarks; it is a zip) "
    "or clone its repository, and name that folder"
)


def find_part(reference: Path, part: str, check: bool = True) -> Path:
    """Find the folder of a benchmark's data below the folder that a user named.

    Args:
        reference: The package's folder, its `assets`, or a folder with the package in it.
        part: A key of `DATA`.
        check: Whether the files have to be those of the version that results were compared with.

    Raises:
        UserError: It is not there, or the files are others.
    """
    inside, expected = DATA[part]
    for above in ("", "assets", "bioemu_benchmarks/assets"):
        folder = reference / above / inside
        if folder.is_dir():
            break
    else:
        raise UserError(f"{reference}: expected {inside} below it, found nothing", _HINT)
    if check and (found := digest(folder)) != expected:
        raise UserError(
            f"{folder}: the files are not those of bioemu-benchmarks 0.0.2.post1 (digest "
            f"{found[:12]}, expected {expected[:12]})",
            "download them again; --set check_data=false takes them as they are",
        )
    return folder


def digest(folder: Path) -> str:
    """Return the SHA-256 over names and SHA-256 of all files below a folder, hexadecimal."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{path.relative_to(folder).as_posix()} {sha256_of_file(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_cases(folder: Path) -> dict[str, list[str]]:
    """Return for each sequence in one-letter code the test cases that it is a sample of."""
    path = require_file(folder / "testcases.csv", "test cases")
    found: dict[str, list[str]] = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["sequence"], []).append(row["test_case"])
    return found
