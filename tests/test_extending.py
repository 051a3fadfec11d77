"""How plugins reach the commands; docs/extending.md has one with a component of each kind."""

import pytest

from protenix_eba.cli.main import run
from protenix_eba.core.errors import UserError
from protenix_eba.host.config import EBAConfig

COMMANDS = {
    "init": ["--config", "c.yaml", "--out", "x.pt"],
    "embed": ["--config", "c.yaml", "--checkpoint", "x.pt", "--input", "md", "--out", "e"],
    "sample": ["--config", "c.yaml", "--checkpoint", "x.pt", "--input", "a.fasta", "--out", "s"],
    "fold": ["--predictions", "p.npz", "--out", "f"],
    "refine": ["--predictions", "p.npz", "--structures", "a.pdb", "--out", "r"],
    "label": ["--input", "md", "--out", "l.parquet"],
    "evaluate": ["--reference", "md", "--samples", "s", "--out", "e"],
    "compare": ["e", "--out", "c"],
}


@pytest.mark.parametrize("verb", COMMANDS)
def test_an_unknown_plugin_is_said_first_with_the_known_ones(verb, capsys):
    assert run([verb, *COMMANDS[verb], "--plugin", "absent"]) == 2
    message = "there is no plugin called 'absent'; installed are: protenix_eba"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--head", "ebmfolt"], "there is no head called 'ebmfolt'; registered are: ebmfold"),
        (["--head", "ebmfold", "--weights", "absent"], "expected a file at absent"),
    ],
)
def test_an_unknown_head_is_an_error_that_lists_the_known_ones(words, message, tmp_path, capsys):
    predictions = tmp_path / "p.npz"
    predictions.write_bytes(b"not read before the head is there")
    fasta = tmp_path / "p.fasta"
    fasta.write_text(">p\nGGGGG\n")
    common = [
        "--predictions",
        str(predictions),
        "--fasta",
        str(fasta),
        "--out",
        str(tmp_path / "o"),
    ]
    assert run(["fold", *common, *words]) == 2
    assert message in capsys.readouterr().err


def test_a_loader_without_targets_trains_but_cannot_be_sampled():
    """Three members are enough for training: `training.data.interfaces.Loader`."""
    from protenix_eba.training.trainer import EBATrainer

    class Least:
        def __getitem__(self, index): ...
        def generator(self, index): ...
        def share(self, steps, rank, world_size): ...

    trainer = EBATrainer.__new__(EBATrainer)
    trainer.eba = EBAConfig(validation_samples=0)
    trainer._check_validation(Least())
    trainer.eba = EBAConfig(validation_samples=2, dataloader="least")
    with pytest.raises(UserError, match="the dataloader least has no targets to sample"):
        trainer._check_validation(Least())
