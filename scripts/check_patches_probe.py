"""Questions of check_patches.py to one Protenix; runs where that Protenix is first on the path.

python scripts/check_patches_probe.py configs OUT.json
python scripts/check_patches_probe.py step OUT.json [KEY=VALUE ...]
"""

import hashlib
import json
import sys
import tempfile
from copy import deepcopy
from pathlib import Path

import numpy as np

SEQUENCE = "GYDPETGTWG"
TINY = {
    "model_name": "protenix_tiny_default_v0.5.0", "c_s": "32", "c_z": "16",
    "model.N_cycle": "1", "model.msa_module.n_blocks": "1", "model.pairformer.n_blocks": "1",
    "model.confidence_head.n_blocks": "1", "model.diffusion_module.c_token": "64",
    "model.diffusion_module.transformer.n_blocks": "1", "blocks_per_ckpt": "null",
    "diffusion_batch_size": "2", "sample_diffusion.N_step_mini_rollout": "2", "dtype": "fp32",
    "max_steps": "1", "log_interval": "1", "eval_interval": "-1", "use_wandb": "false",
    "project": "check", "run_name": "step",
}  # fmt: skip


def configs_of_all_models():
    """Return the configuration that Protenix's command resolves for each model."""
    from configs.configs_model_type import model_configs
    from runner import train

    resolved = {}

    class Recorder:
        def __init__(self, configs):
            resolved[configs.model_name] = configs.to_dict()

        def run(self):
            pass

    train.AF3Trainer = Recorder
    defaults = deepcopy((train.configs_base, train.data_configs))
    for name in model_configs:
        # Unpatched, the command changes its module's defaults.
        train.configs_base, train.data_configs = deepcopy(defaults)
        sys.argv = ["train.py", "--model_name", name, "--lr", "1e-4", "--c_z", "64"]
        sys.argv += ["--data.train_sets", "a,b", "--blocks_per_ckpt", "null"]
        train.main()
    return resolved


def own_training_step(overrides):
    """Make a step of Protenix's own trainer; return all losses and a digest of the weights."""
    import torch.utils.checkpoint  # noqa: F401  the host uses it without importing it
    from runner.train import AF3Trainer

    from protenix_eba.host.config import resolve_config

    class OneItem(AF3Trainer):
        def init_data(self):
            self.train_dl, self.test_dls = [training_item()], {}

        def train_step(self, batch):
            super().train_step(batch)
            self.metrics = deepcopy(self.train_metric_wrapper).calc()

    with tempfile.TemporaryDirectory() as folder:
        trainer = OneItem(resolve_config((), None, TINY | {"base_dir": folder} | overrides))
        trainer.run()
    digest = hashlib.sha256()
    for _, tensor in sorted(trainer.raw_model.state_dict().items()):
        digest.update(tensor.numpy().tobytes())
    losses = {key: float(value) for key, value in sorted(trainer.metrics.items())}
    return {"losses": losses, "weights": digest.hexdigest()}


def training_item():
    """Return a training item: a peptide's features, with coordinates drawn at random."""
    import torch
    from protenix.data.core.featurizer import Featurizer
    from protenix.data.inference.json_to_feature import SampleDictToFeatures
    from protenix.data.utils import data_type_transform, make_dummy_feature

    sequences = [{"proteinChain": {"sequence": SEQUENCE, "count": 1}}]
    inference = SampleDictToFeatures({"name": "peptide", "sequences": sequences})
    frames, atoms, tokens = inference.get_feature_dict()
    atoms.coord = np.random.default_rng(0).normal(scale=5, size=atoms.coord.shape)
    atoms.set_annotation("is_resolved", np.ones(len(atoms), bool))
    _, first, residue = np.unique(atoms.ref_space_uid, return_index=True, return_inverse=True)
    # no atom may be exchanged for another
    atoms.set_annotation("res_perm", (np.arange(len(atoms)) - first[residue]).astype(str))

    featurizer = Featurizer(tokens, atoms, ref_pos_augment=False)
    features = featurizer.get_all_input_features()
    features["atom_perm_list"] = featurizer.get_atom_permutation_list()
    features |= {key: frames[key] for key in ("has_frame", "frame_atom_index")}
    features["resolution"] = torch.tensor([2.0])
    features = make_dummy_feature(features, dummy_feats=["msa", "template"])
    whole, _ = Featurizer.get_gt_full_complex_features(atoms, atoms, True)
    return {
        "input_feature_dict": data_type_transform(features),
        "label_dict": data_type_transform(featurizer.get_labels()),
        "label_full_dict": whole,
        "basic": {"pdb_id": "none"},
    }


def main():
    question, out, *words = sys.argv[1:]
    from protenix_eba.host import environment

    environment.prepare_environment()
    environment.ensure_ccd_cache()
    if question == "configs":
        answer = configs_of_all_models()
    else:
        answer = own_training_step(dict(word.split("=") for word in words))
    Path(out).write_text(json.dumps(answer, sort_keys=True, default=str), encoding="utf-8")


if __name__ == "__main__":
    main()
