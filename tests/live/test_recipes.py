"""Recipes of docs/live.md that are programs: each is run as it is printed."""

import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

from histream_core.live.page import Page

DOCS = Path(__file__).parents[2] / "docs" / "live.md"


class Session:
    """The object that a page speaks to."""

    def __init__(self):
        self.heard = []

    def say(self, words, text):
        self.heard.append((words, text))

    def report(self):
        return {"frames": len(self.heard)}


def test_cues_by_osc_reach_the_stream(tmp_path):
    """A plain socket speaks OSC: name, kinds and text, each filled with zeros to four bytes."""
    script = tmp_path / "cues.py"
    [code] = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    script.write_text(code, encoding="utf-8")
    session = Session()
    page = Page(session, len, None)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as show:
        show.bind(("127.0.0.1", 0))
        port = show.getsockname()[1]
    program = subprocess.Popen([sys.executable, str(script), page.start(), str(port)])
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as show:
            for _ in range(600):  # until the script listens
                show.sendto(b"/prompt\0,s\0\0a red fox\0\0\0", ("127.0.0.1", port))
                threading.Event().wait(0.1)
                if session.heard or program.poll() is not None:
                    break
    finally:
        program.kill()
        program.wait()
        page.close()
    assert session.heard[0] == ("a red fox", 9)
