"""Pages that we make, in headless Chromium: they are drawn, say what they should, and load nothing from elsewhere.

The report of `provost bench suite`, that of `provost audit verify --html`, and the page of a node at `/`.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from cluster import FOREIGN, LIMIT, Failed, Processes, binary, expect, post_tool, wait

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Two cheap rows of the suite: the page is looked at, not the figures.
ROWS = "throughput,quota"
# A page of this size that shows nothing is a smaller picture than any that shows text, by this factor.
DRAWN = 3


class Browser:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.blank = len(self.draw("blank", "data:text/html,<title>t</title>")[1])

    def run(self, *args):
        command = [
            self.program, "--headless", "--disable-gpu", "--hide-scrollbars", "--window-size=1280,1600", "--no-first-run",
            "--disable-extensions", "--enable-logging=stderr", "--log-level=0", f"--user-data-dir={self.folder / 'browser'}",
            # Whatever a page asks for on other hosts fails, and the console says so.
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            # Chromium's own walls are refused to root.
            *(["--no-sandbox"] if os.geteuid() == 0 else []), *map(str, args),
        ]
        done = subprocess.run(command, capture_output=True, check=False, timeout=LIMIT, stdin=subprocess.DEVNULL)
        said = done.stderr.decode(errors="replace")
        expect(done.returncode == 0, f"{args[-1]}: the browser ended with {done.returncode}: {said[-1000:]}")
        return done.stdout.decode(errors="replace"), re.findall(r".*:CONSOLE.*", said)

    def draw(self, name, url, *args):
        """What the console said, and the picture."""
        picture = self.folder / f"{name}.png"
        _, console = self.run(*args, f"--screenshot={picture}", url)
        return console, picture.read_bytes()

    def check(self, name, url, texts):
        console, picture = self.draw(name, url)
        expect(not console, f"{name}: the console says {console}")
        expect(len(picture) > DRAWN * self.blank, f"{name}: nothing is drawn ({len(picture)} bytes)")
        page, _ = self.run("--dump-dom", url)
        for text in texts:
            expect(text in page, f"{name}: the page does not say `{text}`")
        print(f"ok - {name}: drawn ({len(picture) // 1024} KiB), nothing on the console")


def browser_here():
    """The program of one, or None."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def keep(folder):
    """Copies the pictures to where they are wanted."""
    if kept := os.environ.get("PICTURES"):
        pathlib.Path(kept).mkdir(parents=True, exist_ok=True)
        for picture in folder.glob("*.png"):
            shutil.copy(picture, kept)


def play(program, browser, folder, stack):
    processes = Processes(folder)
    stack.callback(processes.end)
    processes.start("node", program, "dev", "--data-dir", folder / "node", "--http", "127.0.0.1:0")

    def started():
        processes.check()
        return json.loads((folder / "node" / "dev.json").read_text())

    dev = wait(started, "the node is ready")
    browser.check("the page of a node", dev["console"], ["/healthz", "/readyz"])
    # A search of the quickstart, so that the log has a call.
    wait(lambda: post_tool(dev["mcp"], dev["token"], "echo.echo", {"text": "hi"})[0] == 200, "a call is made")
    processes.end()
    processes.running.clear()
    clean = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}

    def provost(*args):
        return subprocess.run([program, *map(str, args)], capture_output=True, text=True, check=False, env=clean, cwd=folder,
                              timeout=600, stdin=subprocess.DEVNULL)

    report = folder / "audit.html"
    done = provost("audit", "verify", folder / "node" / "audit", "--html", report)
    # 2: consistent, with nothing outside to hold it against.
    expect(done.returncode in (0, 2) and report.exists(), f"audit verify: {done.stdout[-1000:]}{done.stderr}")
    browser.check("the report about an audit log", report.as_uri(), ["acme"])
    out = folder / "report"
    done = provost("bench", "suite", "--quick", "--rows", ROWS, "--out", out, "--dir", folder / "bench")
    expect(done.returncode == 0, f"bench suite: {done.stdout[-1000:]}{done.stderr[-2000:]}")
    titles = [row["title"] for row in json.loads((out / "report.json").read_text())["rows"]]
    browser.check("the report of the suite", (out / "report.html").as_uri(), ["<svg", *titles])


def main():
    program = binary()
    if program is None:
        print("pages: SKIPPED, there is no provost (PROVOST_BINARY, or build one)")
        return 0
    found = browser_here()
    if found is None:
        print("pages: SKIPPED, Chromium is not installed (apt-get install chromium)")
        return 0
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="provost-pages-")))
        try:
            play(program, Browser(found, folder), folder, stack)
        except Failed as cause:
            print(f"not ok - {cause}", file=sys.stderr)
            return 1
        keep(folder)
    print("pages: passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
