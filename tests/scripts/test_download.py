"""The download script against a local server that breaks off, forgets ranges and refuses."""

from __future__ import annotations

import http.server
import io
import os
import shutil
import signal
import subprocess
import threading
import time
import zipfile
from collections import Counter
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "download_atlas.sh"
DEMO = Path(__file__).parents[2] / "protenix_eba" / "demo_data"

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "curl", "unzip"))), reason="needs bash, curl and unzip"
)


def archive(name: str, leave_out: str = "") -> bytes:
    """A small archive as ATLAS publishes them."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        files = [f"{name}.pdb", *(f"{name}_prod_R{r}_fit.xtc" for r in (1, 2, 3)), "README.txt"]
        for file in files:
            if file != leave_out:
                suffix = file.removeprefix(name)
                content = (
                    b"" if file == "README.txt" else (DEMO / f"grgds/grgds{suffix}").read_bytes()
                )
                made.writestr(file, content)
    return packed.getvalue()


class Atlas(http.server.BaseHTTPRequestHandler):
    """Serves `server.files` with ranges; breaks off as `server.breaks` says, by path."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.ranges[self.path].append(self.headers.get("Range"))
        content = server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = 0
        if server.has_ranges and (header := self.headers.get("Range")):
            start = int(header.removeprefix("bytes=").split("-")[0])
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = content[start:]
        if server.breaks[self.path] > 0:
            server.breaks[self.path] -= 1
            rest = rest[: len(rest) // 2]
        try:
            for at in range(0, len(rest), 4096):
                self.wfile.write(rest[at : at + 4096])
                time.sleep(server.pause)
        except OSError:
            pass  # the client was interrupted
        self.close_connection = True


@pytest.fixture
def atlas():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Atlas)
    server.daemon_threads = True
    server.files, server.breaks, server.pause = {}, Counter(), 0
    server.ranges, server.has_ranges = {}, True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def put(name: str, content: bytes | None) -> str:
        path = f"/{name}/{name}_protein.zip"
        server.ranges[path] = []
        if content is not None:
            server.files[path] = content
        return path

    server.put = put
    yield server
    server.shutdown()
    server.server_close()


def command(server, names: list[str], folder: Path, *words: str) -> list[str]:
    table = folder / "names.csv"
    lines = ["name,seqres,release_date", *(f"{n},ACD,2020-01-01" for n in names)]
    table.write_text("\r\n".join(lines) + "\r\n", encoding="utf-8")
    url = f"http://127.0.0.1:{server.server_address[1]}"
    options = ["--names", table, "--out", folder / "out", "--url", url, "--wait", "0", *words]
    return ["bash", str(SCRIPT), *map(str, options)]


def download(server, names: list[str], folder: Path, *words: str):
    return subprocess.run(
        command(server, names, folder, *words), capture_output=True, text=True, timeout=60
    )


def test_all_archives_arrive_and_a_second_run_asks_for_none(atlas, tmp_path):
    names = ["1abc_A", "2xyz_B", "3def_C"]
    paths = [atlas.put(name, archive(name)) for name in names]
    result = download(atlas, names, tmp_path, "--jobs", "2")
    assert result.returncode == 0, result.stderr
    for name, path in zip(names, paths, strict=True):
        assert (tmp_path / "out" / f"{name}_protein.zip").read_bytes() == atlas.files[path]
    requests = sum(map(len, atlas.ranges.values()))
    assert download(atlas, names, tmp_path).returncode == 0
    assert sum(map(len, atlas.ranges.values())) == requests
    assert list((tmp_path / "out").glob("*.part")) == []


def test_a_broken_connection_is_continued_where_it_broke(atlas, tmp_path):
    path = atlas.put("1abc_A", archive("1abc_A"))
    atlas.breaks[path] = 2
    assert download(atlas, ["1abc_A"], tmp_path).returncode == 0
    size = len(atlas.files[path])
    assert atlas.ranges[path] == [None, f"bytes={size // 2}-", f"bytes={size // 2 + size // 4}-"]
    assert (tmp_path / "out/1abc_A_protein.zip").read_bytes() == atlas.files[path]


def test_a_server_without_ranges_is_asked_from_the_start(atlas, tmp_path):
    path = atlas.put("1abc_A", archive("1abc_A"))
    atlas.breaks[path], atlas.has_ranges = 1, False
    assert download(atlas, ["1abc_A"], tmp_path).returncode == 0
    assert atlas.ranges[path][-1] is None
    assert (tmp_path / "out/1abc_A_protein.zip").read_bytes() == atlas.files[path]


def test_what_is_missing_is_named_and_the_rest_arrives(atlas, tmp_path):
    atlas.put("1abc_A", archive("1abc_A"))
    absent = atlas.put("9zzz_Z", None)
    atlas.put("2cut_A", archive("2cut_A")[:-30])
    atlas.put("3lac_K", archive("3lac_K", leave_out="3lac_K_prod_R2_fit.xtc"))
    atlas.put("4nop_A", archive("4nop_A", leave_out="4nop_A.pdb"))
    names = ["1abc_A", "9zzz_Z", "2cut_A", "3lac_K", "4nop_A"]
    result = download(atlas, names, tmp_path, "--retries", "2")
    assert result.returncode == 3
    assert "4 of 5 archives are missing" in result.stderr
    assert result.stderr.split()[-4:] == ["2cut_A", "3lac_K", "4nop_A", "9zzz_Z"]
    for reason in (
        "9zzz_Z: FAILED: the server does not have it (404)",
        "2cut_A: FAILED: the archive is broken",
        "3lac_K: FAILED: it holds less than three .xtc",
        "4nop_A: FAILED: it holds no 4nop_A.pdb",
    ):
        assert reason in result.stdout
    assert [f.name for f in (tmp_path / "out").glob("*.zip*")] == ["1abc_A_protein.zip"]
    assert len(atlas.ranges[absent]) == 1, "a missing archive is not asked for again"


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_download_ends_at_once_and_goes_on(atlas, tmp_path, kind):
    path = atlas.put("1abc_A", archive("1abc_A"))
    atlas.pause = 0.1
    process = subprocess.Popen(
        command(atlas, ["1abc_A"], tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # What starts the tests in the background may ignore it, and the script could not trap it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    part = tmp_path / "out/1abc_A_protein.zip.part"
    deadline = time.monotonic() + 20
    while not (part.is_file() and part.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, kind)
    assert process.wait(10) == 130
    assert "start again" in process.communicate()[1]
    got = part.stat().st_size
    assert 0 < got < len(atlas.files[path])
    atlas.pause = 0
    assert download(atlas, ["1abc_A"], tmp_path).returncode == 0
    assert int(atlas.ranges[path][-1].removeprefix("bytes=").rstrip("-")) >= got
    assert (tmp_path / "out/1abc_A_protein.zip").read_bytes() == atlas.files[path]


def test_a_part_that_was_whole_when_the_run_died_is_kept(atlas, tmp_path):
    path = atlas.put("1abc_A", archive("1abc_A"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/1abc_A_protein.zip.part").write_bytes(atlas.files[path])
    assert download(atlas, ["1abc_A"], tmp_path).returncode == 0
    assert len(atlas.ranges[path]) == 1
    assert (tmp_path / "out/1abc_A_protein.zip").read_bytes() == atlas.files[path]


def test_a_split_file_is_fetched_with_its_targets(atlas, tmp_path):
    atlas.put("1abc_A", archive("1abc_A"))
    atlas.ranges["/splits/atlas_test.csv"] = []
    atlas.files["/splits/atlas_test.csv"] = b"name,seqres\n1abc_A,GRGDS\n"
    url = f"http://127.0.0.1:{atlas.server_address[1]}"
    words = [
        "--split",
        "test",
        "--out",
        str(tmp_path),
        "--url",
        url,
        "--splits-url",
        f"{url}/splits",
    ]
    result = subprocess.run(["bash", str(SCRIPT), *words], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert sorted(f.name for f in tmp_path.glob("*A*")) == ["1abc_A_protein.zip"]
    assert (tmp_path / "atlas_test.csv").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "o"], "give --names or --split"),
        (["--names", "absent.csv", "--out", "o"], "no file at absent.csv"),
        (["--names", "bad.csv", "--out", "o"], 'no column "name"'),
        (["--names", "evil.csv", "--out", "o"], "no name of a target"),
        (["--split", "rest", "--out", "o"], "train, val or test"),
        (["--names", "good.csv", "--out", "o", "--jobs", "0"], "numbers from 1"),
        (["--names", "good.csv", "--out", "good.csv/o"], "cannot write"),
        (["--names", "good.csv"], "give --out"),
        (["--frobnicate"], "unknown option"),
        (["--names"], "needs a value"),
    ],
)
def test_unusable_options_are_refused(tmp_path, words, message):
    (tmp_path / "bad.csv").write_text("target\n1abc_A\n")
    (tmp_path / "evil.csv").write_text("name\n../../etc\n")
    (tmp_path / "good.csv").write_text("name\n1abc_A\n")
    result = subprocess.run(
        ["bash", str(SCRIPT), *words], capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode == 2
    assert message in result.stderr


def test_help_needs_nothing():
    result = subprocess.run(["bash", str(SCRIPT), "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    assert "protenix-eba import" in result.stdout
