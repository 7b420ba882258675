"""A real ComfyUI server in a process of its own, spoken to over HTTP and its web socket."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

START_SECONDS = 240
RUN_SECONDS = 600
PREVIEW_WITH_METADATA = 4


@dataclass
class Run:
    """The messages of the server about one prompt."""

    error: str = ""
    interrupted: bool = False
    outputs: dict = field(default_factory=dict)
    progress: list = field(default_factory=list)
    """(node id, value, max), as they came."""
    previews: list = field(default_factory=list)
    """Bytes of the pictures shown while it ran."""


class Server:
    """Started on a folder, with the pack as its only custom node, and with more flags; a context manager."""

    def __init__(self, comfyui: Path, pack: Path, folder: Path, *flags: str):
        self.folder = folder
        (folder / "custom_nodes").mkdir(parents=True, exist_ok=True)
        place = folder / "custom_nodes" / "histream"
        if not place.is_symlink():
            place.symlink_to(pack)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = (folder / "log.txt").open("w+")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(self.port)),
                *("--base-directory", str(folder), "--disable-api-nodes"),
                *("--database-url", f"sqlite:///{folder / 'comfyui.db'}"),
                *flags,
            ],
            cwd=comfyui,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )

    def __enter__(self):
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(30)
        self.log.close()

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def kill(self) -> None:
        """Kill the server as a crash would, without a chance to clean up."""
        self._process.kill()
        self._process.wait()

    def _wait(self) -> None:
        for _ in range(START_SECONDS * 2):
            if self._process.poll() is not None:
                break
            try:
                self.get("/system_stats")
                return
            except (OSError, urllib.error.URLError):
                time.sleep(0.5)
        raise RuntimeError(f"ComfyUI did not start:\n{self.read_log()[-3000:]}")

    def read_log(self) -> str:
        return Path(self.log.name).read_text()

    def get(self, path: str):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            return json.loads(answer.read())

    def post(self, path: str, body: dict) -> dict:
        """The answer, also where the server refuses."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            return json.loads(error.read())

    def run(self, prompt: dict, *, on_progress=None) -> Run:
        """Queue an API-format prompt and wait for its end; `on_progress` is told (node id, value, max)."""
        import websocket

        web = websocket.create_connection(f"ws://127.0.0.1:{self.port}/ws?clientId=test", timeout=RUN_SECONDS)
        web.send(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}))
        try:
            answer = self.post("/prompt", {"prompt": prompt, "client_id": "test"})
            if "prompt_id" not in answer:
                return Run(error=json.dumps(answer))
            return self._follow(web, answer["prompt_id"], on_progress)
        finally:
            web.close()

    def _follow(self, web, prompt_id: str, on_progress) -> Run:
        run, ended = Run(), False
        while not ended:
            message = web.recv()
            if isinstance(message, str):
                ended = _ends(run, json.loads(message), prompt_id, on_progress)
            elif int.from_bytes(message[:4], "big") == PREVIEW_WITH_METADATA:
                start = 8 + int.from_bytes(message[4:8], "big")
                run.previews.append(message[start:])
        return run


def _ends(run: Run, message: dict, prompt_id: str, on_progress) -> bool:
    """Note in `run` what a message says of that prompt; whether it is the last one."""
    data, kind = message.get("data") or {}, message["type"]
    if data.get("prompt_id") != prompt_id:
        return False
    if kind == "progress":
        run.progress.append((data["node"], data["value"], data["max"]))
        if on_progress:
            on_progress(*run.progress[-1])
    elif kind == "executed":
        run.outputs[data["node"]] = data["output"]
    elif kind == "execution_error":
        run.error = data["exception_message"].strip()
    elif kind == "execution_interrupted":
        run.interrupted = True
    return kind in ("execution_error", "execution_interrupted", "execution_success")
