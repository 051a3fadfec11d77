import io
import re
import subprocess
import sys
import time

import pytest
from rich.console import Console
from rich.progress import Progress

from protenix_eba.core import progress


@pytest.mark.parametrize("width", [80, 120])
def test_a_narrow_terminal_cuts_words_and_no_number(width):
    shown = io.StringIO()
    console = Console(file=shown, width=width, force_terminal=True)
    with Progress(
        *progress.bar_columns(), console=console, get_time=iter(range(10**6)).__next__
    ) as bar:
        bar.add_task(
            "training a_run_with_a_long_name_42",
            total=1_000_000,
            completed=999_999,
            note="loss 0.123456, 3.4 s, 12.5 GB of memory",
        )
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue()).strip().splitlines()[-1]
    assert "999999/1000000" in last
    assert re.search(r"\d+:\d\d:\d\d +left +-:--:--", last)
    assert len(last) <= width


def test_into_a_file_a_line_says_count_rate_and_time_left(tmp_path):
    code = (
        "import sys, time\n"
        "from protenix_eba.core import progress\n"
        "progress.FIRST_LINE_S = progress.LINE_INTERVAL_S = 0\n"
        "for item in progress.track(range(3), 'counting', 3):\n"
        "    time.sleep(0.05)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = ended.stderr.splitlines()
    assert [line.split(" ")[1] for line in lines] == ["1/3", "2/3", "3/3", "3/3"]
    rate = r"\d+\.\d (each second|s each)"  # a busy machine takes its time
    assert re.fullmatch(rf"counting: 2/3 in 0:00:\d\d, {rate}, 0:00:\d\d left", lines[1])
    assert "left" not in lines[-1]


def test_a_command_into_a_file_says_how_far_it_is_before_its_end(tmp_path, demo_data):
    code = (
        "import sys\n"
        "from protenix_eba.core import progress\n"
        "from protenix_eba.cli.main import run\n"
        "progress.FIRST_LINE_S = progress.LINE_INTERVAL_S = 0\n"
        "sys.exit(run(sys.argv[1:]))\n"
    )
    words = ["import", "--input", demo_data, "--out", tmp_path / "out", "--jobs", "1"]
    log = tmp_path / "job.log"
    with log.open("w") as handle:
        process = subprocess.Popen([sys.executable, "-c", code, *map(str, words)], stderr=handle)
        try:
            while process.poll() is None and "importing: 1/4 in " not in log.read_text():
                time.sleep(0.02)
            assert process.poll() is None, log.read_text()
            assert process.wait(timeout=300) == 0
        finally:
            process.kill()
    assert "importing: 4/4 in " in log.read_text()


def test_short_work_into_a_file_says_its_end_alone(capfd):
    assert list(progress.track(range(100), "counting", 100)) == list(range(100))
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("counting")]
    assert len(lines) == 1 and lines[0].startswith("counting: 100/100 in 0:00:00")
