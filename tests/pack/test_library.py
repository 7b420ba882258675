"""The page for library users runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import histream_core

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")


def test_the_page_runs(tmp_path, monkeypatch, capsys):
    """Seen to fail with a name that is not there."""
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    names = {}
    exec(compile(code, "docs/library.md", "exec"), names)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "21 [4, 2]"
    assert said[1:3] == ["torch.Size([9, 64, 64, 3])", "torch.Size([12, 64, 64, 3])"]
    assert said[3].startswith("21 ")
    assert (tmp_path / "library.mp4").stat().st_size > 1000
    assert sum(len(clip) for clip in names["clips"]) == 21
    assert (tmp_path / "my run" / "video.mp4").stat().st_size > 1000
    assert said[-1] == "1 shots: 1 finished"


def test_every_name_of_the_package_is_there_and_on_the_page():
    """Seen to fail with a name that nobody is told of."""
    for name in histream_core.__all__:
        assert getattr(histream_core, name) is not None
        assert name in PAGE or name == "Weights", name
    assert len(histream_core.__all__) <= 15


def test_importing_the_package_loads_nothing():
    """Seen to fail with an import of `plan` at the top."""
    code = "import sys; sys.path.append(sys.argv[1]); import histream_core; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
