"""Work in a process of its own: its outcome, its failures, and its end."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from background_work import end_at_once, note_and_sleep, refuse, wait_and_write, write

from protenix_eba.core.errors import UserError
from protenix_eba.training.replay.background import Background


@pytest.fixture
def background():
    made = Background()
    yield made
    made.stop()


def test_work_is_done_elsewhere_and_its_output_is_in_the_log(background, tmp_path):
    background.begin(partial(write, tmp_path / "a", "done"), tmp_path / "log")
    assert background.busy
    assert background.wait() >= 0 and not background.busy
    assert (tmp_path / "a").read_text() == "done"
    assert (tmp_path / "log").read_text() == "writing\n"


def test_an_error_of_the_input_arrives_with_what_to_do(background, tmp_path):
    background.begin(refuse, tmp_path / "log")
    with pytest.raises(UserError, match=r"no such thing\n.*look for another"):
        background.wait()


def test_a_process_that_dies_is_said_to_have(background, tmp_path):
    background.begin(end_at_once, tmp_path / "log")
    with pytest.raises(UserError, match=r"status 7, .*\n.*log"):
        background.wait()


def test_work_that_is_not_wanted_any_more_ends(background, tmp_path):
    background.begin(partial(note_and_sleep, tmp_path / "pid"), tmp_path / "log")
    wait_until((tmp_path / "pid").is_file)
    background.stop()
    assert not background.busy and is_gone(tmp_path / "pid")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_whole_run_are_not_for_the_work(number, background, tmp_path):
    background.begin(partial(wait_and_write, tmp_path / "pid", tmp_path / "go"), tmp_path / "log")
    wait_until((tmp_path / "pid").is_file)
    os.kill(int((tmp_path / "pid").read_text()), number)
    (tmp_path / "go").touch()
    assert background.wait() >= 0


def test_the_work_ends_with_the_process_that_began_it(tmp_path):
    code = (
        "import pathlib, sys\n"
        "from functools import partial\n"
        "from background_work import Background, note_and_sleep\n"
        "pid, log = map(pathlib.Path, sys.argv[1:])\n"
        "work = Background()\n"
        "work.begin(partial(note_and_sleep, pid), log)\n"
        "work.wait()\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "pid"), str(tmp_path / "log")]
    parent = subprocess.Popen(words, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    wait_until((tmp_path / "pid").is_file)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: is_gone(tmp_path / "pid"))


def wait_until(true):
    for _ in range(600):
        if true():
            return
        time.sleep(0.1)
    raise AssertionError("it never happened")


def is_gone(path):
    """Whether the process whose number is in a file has ended."""
    try:
        state = Path(f"/proc/{path.read_text()}/stat").read_text().split()[2]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"  # an orphan that nobody has collected
