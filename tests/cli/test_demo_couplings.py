"""The demo's couplings beside experiment, with MD in the place of samples."""

import re
import shutil

import pytest

from protenix_eba.cli.demo_stages import MEASURED, Demo, copy_data, predict_couplings
from protenix_eba.cli.demo_summary import show_couplings
from protenix_eba.cli.main import run


@pytest.fixture
def printed(tmp_path, monkeypatch, capsys):
    """What the demo prints at its end, were SFT's samples the biased MD and EBA's the unbiased."""
    monkeypatch.setattr(Demo, "command", lambda demo, _, *words: run([*map(str, words)]))
    demo = Demo(tmp_path, jobs=1)
    copy_data(demo)
    for name, md in (("sft", demo.data), ("eba", demo.truth)):
        shutil.copytree(md / MEASURED, tmp_path / "samples" / name / MEASURED)
    predict_couplings(demo)
    capsys.readouterr()
    show_couplings(demo)
    return " ".join(capsys.readouterr().err.split())


def test_md_sft_and_eba_stand_beside_measured_couplings_and_their_condition(printed):
    titles = ("MD with the bias", "SFT", "EBA", "MD without it (the truth)")
    found = [re.search(rf"{re.escape(t)} ([\d.]+) \(([\d.]+) to", printed)[1] for t in titles]
    assert found[0] == found[1] != found[2] == found[3]
    assert "at pH 2, so its C-terminus is neutral, and here it is charged" in printed
    assert all(w in printed for w in ("measured", "MD_biased", "MD_unbiased", "5.680", "6.520"))
