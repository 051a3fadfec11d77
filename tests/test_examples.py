"""The chain of SLURM jobs in examples/atlas, run with a queue and commands that only take notes."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from command_lines import ROOT, parse

STAGES = "examples/atlas"
# Notes its name and words; as `sbatch` it numbers its jobs; what FAILS names ends with its status.
NOTE = f"""#!{sys.executable}
import json, os, sys
name = os.path.basename(sys.argv[0])
with open(os.environ["NOTES"], "a+") as notes:
    notes.write(json.dumps([name, *sys.argv[1:]]) + "\\n")
    notes.seek(0)
    number = sum(line.startswith('["sbatch"') for line in notes)
if name == "sbatch":
    print(f"{{100 + number}};cluster")
sys.exit(int(os.environ.get("FAILS", 0)) if name != "sbatch" else 0)
"""


class Queue:
    """A folder with the examples, where commands are noted and not run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "scripts").mkdir()
        (folder / "examples").symlink_to(ROOT / "examples")
        for path in ("sbatch", "protenix-eba", "scripts/download_atlas.sh"):
            (folder / path).write_text(NOTE)
            (folder / path).chmod(stat.S_IRWXU)

    def run(self, script: str, *words: str, **environment: object) -> tuple[int, list[list[str]]]:
        """Run a script; return its exit status and the commands that it called."""
        notes = self.folder / "notes"
        notes.write_text("")
        path = f"{self.folder}:{os.environ['PATH']}"
        given = {key: str(value) for key, value in environment.items()}
        done = subprocess.run(
            ["bash", script, *words],
            cwd=self.folder, check=False, capture_output=True,
            env={**os.environ, "PATH": path, "NOTES": str(notes), **given},
        )  # fmt: skip
        return done.returncode, [json.loads(line) for line in notes.read_text().splitlines()]


class Submitted(NamedTuple):
    """A job: what it runs, the jobs that it waits for, and its other options."""

    words: list[str]
    after: set[int]
    options: list[str]


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path)


def chain(queue: Queue, *words: str, **environment: object) -> dict[int, Submitted]:
    """The jobs that `submit.sh` submits, by their numbers."""
    status, calls = queue.run(f"{STAGES}/submit.sh", *words, **environment)
    assert status == 0
    jobs = {}
    for number, (name, *rest) in enumerate(calls, start=101):
        assert name == "sbatch"
        script = next(i for i, word in enumerate(rest) if not word.startswith("-"))
        options = rest[:script]
        (after,) = [o for o in options if o.startswith("--dependency")] or [""]
        waits = {int(found) for found in re.findall(r"\d+", after)}
        assert not after or after == "--dependency=afterok:" + ":".join(map(str, sorted(waits)))
        jobs[number] = Submitted(rest[script:], waits, options)
    return jobs


def headers(script: Path) -> dict[str, str]:
    found = re.findall(r"^#SBATCH --([\w-]+)=(\S+)", script.read_text(), re.MULTILINE)
    return dict(found)


def stage_scripts() -> list[Path]:
    return sorted((ROOT / STAGES).glob("[0-9]*.sh"))


def test_every_stage_is_submitted_behind_what_it_needs(queue: Queue) -> None:
    jobs = chain(queue, "--account=mine")
    names = {number: Path(job.words[-1]).name for number, job in jobs.items()}
    scripts = {Path(job.words[0]).name for job in jobs.values()} - {"slurm.sh"}
    assert scripts == {path.name for path in stage_scripts()}
    needs = {name: {names[n] for n in jobs[number].after} for number, name in names.items()}
    assert needs == {
        "1_download.sh": set(),
        "2_import.sh": {"1_download.sh"},
        "3_label.sh": {"2_import.sh"},
        "3_merge.sh": {"3_label.sh"},
        "4_embed.sh": {"2_import.sh"},
        "sft_stage1": {"3_merge.sh", "4_embed.sh"},
        "sft_stage2": {"sft_stage1"},
        "eba": {"sft_stage2"},
        "eba_dpo": {"sft_stage2"},
        "6_sample.sh": {"eba", "eba_dpo"},
        "7_evaluate.sh": {"6_sample.sh"},
        "7_compare.sh": {"7_evaluate.sh"},
    }
    assert all({"--parsable", "--account=mine"} <= set(job.options) for job in jobs.values())


def test_trainings_are_understood_and_take_fewer_steps_if_asked_to(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    trained = [
        job.words
        for job in chain(queue, STEPS=2000).values()
        if job.words[0] == "examples/slurm.sh"
    ]
    assert len(trained) == 4
    for words in trained:
        assert words[-2:] == ["--max_steps", "2000"]
        parse(["sbatch", *words])


@pytest.mark.parametrize("script", stage_scripts(), ids=lambda path: path.name)
def test_every_command_of_a_stage_is_understood(
    script: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the last job of its array, which takes the last share."""
    monkeypatch.chdir(ROOT)
    given = headers(script)
    last = given.get("array", "1-1").partition("-")[2]
    environment = {"SLURM_ARRAY_TASK_ID": last, "SLURM_CPUS_PER_TASK": given["cpus-per-task"]}
    status, calls = queue.run(f"{STAGES}/{script.name}", **environment)
    assert status == 0 and calls
    shares = set()
    for name, *words in calls:
        parse([f"scripts/{name}" if name.endswith(".sh") else name, *words])
        if "--shard" in words:
            shares.add(words[words.index("--shard") + 1])
    assert shares == ({f"{last}/{last}"} if "array" in given else set())


@pytest.mark.parametrize("script", stage_scripts(), ids=lambda path: path.name)
def test_a_stage_ends_with_unusable_input_and_goes_on_where_the_next_can(
    script: Path, queue: Queue
) -> None:
    """Some failures, status 3, are what a later stage counts, but where it needs all or is none."""
    strict = {"3_merge.sh", "4_embed.sh", "7_compare.sh"}
    for fails in (2, 3, 143):
        environment = {"SLURM_ARRAY_TASK_ID": 1, "SLURM_CPUS_PER_TASK": 1, "FAILS": fails}
        status, _ = queue.run(f"{STAGES}/{script.name}", **environment)
        assert (status == 0) == (fails == 3 and script.name not in strict)
