"""A page in a real browser: what a probe in it finds, and that nothing complains."""

import json
import re
import shutil
import subprocess

import pytest

needs_browser = pytest.mark.skipif(not shutil.which("chromium"), reason="needs a browser")


def look(page, probe, folder):
    """Return what `probe`, the body of a function in JavaScript, gives half a second after load.

    The page stands alone and says nothing in the console; WebGL is drawn by the CPU.
    """
    script = f"""<script>window.addEventListener("load", () => setTimeout(() => {{
      const sizes = [...document.images].map((i) => i.complete ? i.naturalWidth : 0);
      const loaded = performance.getEntriesByType("resource").map((e) => e.name.slice(0, 5));
      const found = (() => {{ {probe} }})();
      document.body.dataset.found = JSON.stringify({{sizes, loaded, found}});
    }}, 500))</script></body>"""
    copy = folder / "page.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", script), encoding="utf-8")
    words = "--headless --no-sandbox --use-angle=swiftshader --enable-unsafe-swiftshader"
    log = ["--enable-logging=stderr", "--v=0", f"--user-data-dir={folder / 'profile'}"]
    end = ["--virtual-time-budget=9000", "--dump-dom", copy.as_uri()]
    command = ["chromium", *words.split(), *log, *end]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    assert "CONSOLE" not in shown.stderr, shown.stderr
    match = re.search(r'data-found="([^"]*)"', shown.stdout)
    assert match, shown.stderr[-2000:]
    result = json.loads(match.group(1).replace("&quot;", '"').replace("&amp;", "&"))
    assert set(result["loaded"]) <= {"data:"}
    assert not result["sizes"] or min(result["sizes"]) > 200
    return result["found"], len(result["sizes"])
