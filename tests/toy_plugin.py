"""An energy function that somebody installed, for commands in processes of their own."""

import sys
from pathlib import Path

PLUGIN = """
from protenix_eba.host.environment import Plugin


def register():
    import toy_energy


plugin = Plugin("toy", register=register)
"""


def program_with(site: Path, source: str) -> list[str]:
    """Install a source that registers energies as the plugin `toy`, as pip does, into a folder.

    Returns:
        The first words of a command of `protenix-eba` that finds it.
    """
    info = site / "toy_energy-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "toy_energy.py").write_text(source)
    (site / "toy_plugin.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-energy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[protenix.plugins]\ntoy = toy_plugin:plugin\n")
    program = (
        f"import sys; sys.path.insert(0, {str(site)!r}); "
        "from protenix_eba.cli.main import run; sys.exit(run(sys.argv[1:]))"
    )
    return [sys.executable, "-c", program]
