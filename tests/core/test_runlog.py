import json
import math
import os
import struct
import subprocess
import sys
import textwrap

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from protenix_eba.core.runlog import RunLog, open_run_log


def events(folder):
    """All events in the order that TensorBoard reads them: by file name."""
    for path in sorted((folder / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:  # TFRecord: length, its checksum, bytes, their checksum
            (length,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + length])
            data = data[12 + length + 4 :]


def curves(folder):
    """{tag: [(step, value)]} after TensorBoard's purge: a session that starts drops what follows.

    As `EventAccumulator` does: at a SessionLog.START of step s, points of steps >= s are dropped.
    """
    points = []
    for event in events(folder):
        if event.session_log.status == SessionLog.START:
            points = [point for point in points if point[1] < event.step]
        points += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    tags = {tag for tag, _, _ in points}
    return {t: [(step, value) for tag, step, value in points if tag == t] for t in tags}


def write(folder, steps, value, resume_step=0):
    log = open_run_log(folder, resume_step=resume_step, wandb=None)
    for step in steps:
        log.scalars(step, {"loss": value}, "train")
    log.close()


def test_metrics_are_curves_in_groups(tmp_path):
    log = open_run_log(tmp_path, resume_step=0, wandb=None)
    log.scalars(0, {"mse": 2.5}, "validation")
    log.scalars(1, {"loss": 0.5, "lr": 0.25}, "train")
    log.scalars(2, {"loss": math.inf}, "train")
    log.close()
    assert curves(tmp_path) == {
        "validation/mse": [(0, 2.5)],
        "train/loss": [(1, 0.5), (2, math.inf)],
        "train/lr": [(1, 0.25)],
    }


def test_a_resumed_run_leaves_no_stale_points(tmp_path):
    write(tmp_path, range(1, 8), 1.0)
    write(tmp_path, range(5, 7), 2.0, resume_step=4)
    expected = [*((step, 1.0) for step in range(1, 5)), (5, 2.0), (6, 2.0)]
    assert curves(tmp_path)["train/loss"] == expected


def test_a_run_that_died_before_its_first_checkpoint_starts_again(tmp_path):
    write(tmp_path, range(1, 4), 1.0)
    write(tmp_path, range(1, 2), 2.0)
    assert curves(tmp_path)["train/loss"] == [(1, 2.0)]


def test_the_other_processes_write_nothing(tmp_path):
    log = open_run_log(tmp_path, resume_step=0, wandb=None, silent=True)
    log.scalars(1, {"loss": 1.0}, "train")
    log.close()
    assert not list(tmp_path.iterdir())


def test_what_a_resumed_run_repeats_is_not_sent_again():
    class Run:
        step, sent = 5, ()  # points up to step 4 are there

        def log(self, values, step):
            self.step, self.sent = step, (*self.sent, (step, values))

    run = Run()
    log = RunLog(run=run)
    for step in (3, 4, 5):
        log.scalars(step, {"loss": 1.0}, "train")
    log.scalars(5, {"mse": 2.0}, "validation")
    assert run.sent == ((5, {"train/loss": 1.0}), (5, {"validation/mse": 2.0}))


def python(program, **environment):
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=os.environ | environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_weights_and_biases_is_not_imported_unless_asked_for(tmp_path):
    python(f"""
        import sys
        from pathlib import Path
        from protenix_eba.core.runlog import open_run_log

        assert "tensorboardX" not in sys.modules
        log = open_run_log(Path({str(tmp_path)!r}), resume_step=0, wandb=None)
        log.scalars(1, {{"loss": 1.0}}, "train")
        log.close()
        assert not [name for name in sys.modules if name.partition(".")[0] == "wandb"]
    """)


# What a start (to step 3) and its resumption (from step 2) give to Weights & Biases.
WANDB = """
    from pathlib import Path
    from protenix_eba.core.runlog import WandbSettings, open_run_log

    settings = WandbSettings("project", "name", configuration={"eba": {"objective": "eba"}})
    log = open_run_log(Path(FOLDER), resume_step=FIRST - 1, wandb=settings)
    for step in range(FIRST, FIRST + 3):
        log.scalars(step, {"loss": 0.5 * step}, "train")
        log.scalars(step, {"mse": 1.5}, "validation")
    log.close()
"""
READ = """
    import json
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    for file in FILES:
        store = DataStore()
        store.open_for_scan(file)
        while (data := store.scan_data()) is not None:
            items = Record.FromString(data).history.item
            row = {"/".join(item.nested_key): json.loads(item.value_json) for item in items}
            if row:
                print(json.dumps([row["_step"], row["train/loss"], row["validation/mse"]]))
"""


@pytest.mark.slow
def test_an_offline_run_of_weights_and_biases_keeps_its_id(tmp_path):
    for first in (1, 3):
        head = f"\n    FOLDER, FIRST = {str(tmp_path)!r}, {first}\n"
        python(head + WANDB, WANDB_MODE="offline", WANDB_SILENT="true")
    run_id = (tmp_path / "wandb_id.txt").read_text(encoding="utf-8").strip()
    files = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert [path.name for path in files] == 2 * [f"run-{run_id}.wandb"]
    rows = python(f"\n    FILES = {[str(path) for path in files]!r}\n" + READ).splitlines()
    expected = [[step, 0.5 * step, 1.5] for step in (1, 2, 3, 3, 4, 5)]
    assert [json.loads(row) for row in rows] == expected
    assert len(curves(tmp_path)["train/loss"]) == 5


@pytest.mark.slow
def test_an_account_that_is_missing_is_said_plainly(tmp_path):
    # No key, no terminal to ask for one: refused before the network is tried.
    assert "wandb login" in python(
        f"""
        from pathlib import Path
        from protenix_eba.core.errors import UserError
        from protenix_eba.core.runlog import WandbSettings, open_run_log

        try:
            open_run_log(Path({str(tmp_path)!r}), resume_step=0, wandb=WandbSettings("p", "n"))
        except UserError as error:
            print(error)
        """,
        HOME=str(tmp_path),
        WANDB_MODE="online",
        WANDB_API_KEY="",
    )
