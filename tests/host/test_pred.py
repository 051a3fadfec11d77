import json
import subprocess
import sys
from pathlib import Path

import pytest

from protenix_eba.cli.main import run
from protenix_eba.host.environment import prepare_pred_root, protenix_pred_environment
from protenix_eba.host.weights import load_checkpoint

MODEL = "protenix_tiny_default_v0.5.0"

# Weights of the stock model by the host's own code alone.
STOCK_KEYS = """
import json, sys
from runner.batch_inference import get_default_runner
import runner.batch_inference as host
class Runner:
    def __init__(self, configs):
        from protenix.model.protenix import Protenix
        state = Protenix(configs).state_dict()
        print(json.dumps({key: list(value.shape) for key, value in state.items()}))
host.InferenceRunner = Runner
kernels = {"trimul_kernel": "torch", "triatt_kernel": "torch"}
get_default_runner(model_name=sys.argv[1], use_msa=False, **kernels)
"""

pytestmark = pytest.mark.slow


def test_stock_protenix_pred_loads_an_exported_checkpoint_strictly(tmp_path):
    """The command of the unpatched wheel, no plugin: it must write a structure."""
    config = tmp_path / "shallow.yaml"
    config.write_text(
        f"model_name: {MODEL}\nmodel: {{diffusion_module: {{transformer: {{n_blocks: 1}}}}}}\n"
    )
    shallow, plain = tmp_path / "start.pt", tmp_path / f"{MODEL}.pt"
    assert run(["init", "--config", str(config), "--out", str(shallow)]) == 0
    export = ["export", "--checkpoint", str(shallow), "--model-name", MODEL]
    assert run([*export, "--out", str(plain)]) == 0
    before, after = load_checkpoint(shallow), load_checkpoint(plain)
    assert all((before[key] == after[key]).all() for key in before)
    added = set(after) - set(before)
    assert added and all(k.startswith("diffusion_module.diffusion_transformer.") for k in added)

    root = prepare_pred_root(tmp_path / "root", plain, MODEL)
    query = tmp_path / "query.json"
    chain = {"proteinChain": {"sequence": "YGGFM", "count": 1}}
    query.write_text(json.dumps([{"name": "enkephalin", "sequences": [chain]}]))
    command = (
        f"pred -i {query} -o {tmp_path / 'out'} -n {MODEL} --use_msa false --dtype fp32 "
        "--trimul_kernel torch --triatt_kernel torch --sample 1 --step 2 --cycle 1"
    )
    done = subprocess.run(
        [Path(sys.executable).parent / "protenix", *command.split()],
        env=protenix_pred_environment(root),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    structures = list((tmp_path / "out").rglob("*.cif"))
    assert len(structures) == 1, done.stderr[-3000:]
    # Protenix itself loads this model with strict=False; `export` has loaded it strictly into the
    # stock architecture before it wrote it, and nothing was left over or missing here:
    stock = json.loads(
        subprocess.run(
            [sys.executable, "-c", STOCK_KEYS, MODEL],
            env=protenix_pred_environment(root),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()[-1]
    )
    assert {key: list(value.shape) for key, value in after.items()} == stock


def test_a_model_that_is_deeper_than_the_stock_one_is_refused(tmp_path, small_run, capsys):
    export = ["export", "--checkpoint", str(small_run / "start.pt"), "--model-name", MODEL]
    assert run([*export, "--out", str(tmp_path / "x.pt")]) == 2
    assert "does not fit the configured model" in capsys.readouterr().err
    assert not (tmp_path / "x.pt").exists()
