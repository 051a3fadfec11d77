import pytest
import torch

from protenix_eba.ebmfold.checkpoint import build_network, save_network


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of a small random network."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "a.safetensors"
    save_network(path, build_network("equivariant", {"n_layers": 1, "channels": 4}))
    return path
