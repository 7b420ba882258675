"""Files are opened by a few functions that are safe by construction; the code is read for any other way."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = [*(ROOT / "histream_core").rglob("*.py"), *(ROOT / "nodes").rglob("*.py"), ROOT / "__init__.py"]

METHODS = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "touch", "symlink_to", "hardlink_to"}
"""Methods of Path that open or make a file."""

FUNCTIONS = {
    "av": {"open"},
    "builtins": {"open"},
    "filelock": {"FileLock"},
    "io": {"open", "FileIO"},
    "json": {"load", "loads"},
    "np": {"load", "save", "savez", "fromfile", "memmap"},
    "os": {"open", "fdopen", "link", "symlink", "mkfifo", "mknod", "truncate"},
    "safetensors": {"safe_open", "load_file", "save_file"},
    "shutil": {"copy", "copy2", "copyfile", "copyfileobj", "copytree", "move", "rmtree", "unpack_archive"},
    "tempfile": {"TemporaryFile", "NamedTemporaryFile", "TemporaryDirectory", "mkstemp", "mkdtemp"},
    "torch": {"load", "save", "from_file"},
    "zipfile": {"ZipFile"},
}
"""Functions of libraries that open or make a file, or parse what is in one."""

NAMES = {name for functions in FUNCTIONS.values() for name in functions} - {"load", "save", "copy", "move", "link"}
"""Those that are recognised without their module's name too."""

DOORS = {
    "histream_core/files/reading.py": {"open_file": {"os.open", "os.fdopen"}, "parse_json": {"json.loads"}},
    "histream_core/files/disk.py": {
        "File.__init__": {"os.open", "os.fdopen"},
        "_folder_of": {"os.open"},
        "_opened": {"os.open", "os.fdopen"},
        "check_unused": {"os.open"},
        "sync_folder": {"os.open"},
    },
    "histream_core/files/tensors.py": {"read_safetensors": {"safe_open"}},
    "histream_core/live/page.py": {"picture_in": {".open"}},  # bytes in memory
    "histream_core/runs/store/branching.py": {"share": {"os.link"}},
    "histream_core/runs/store/lock.py": {"_file_lock": {"FileLock"}},
    "histream_core/runs/store/whole_latent.py": {"map_latent": {"np.memmap"}},
    "histream_core/video/container.py": {"Output.add_pictures": {".open"}},  # an encoder, and no file
    "histream_core/video/media.py": {
        "open_device": {"av.open"},
        "_opened": {"av.open"},
        "open_muxer": {"av.open"},
        "open_output": {"av.open"},
    },
    "histream_core/video/space.py": {"check_bytes": {"tempfile.TemporaryFile"}},
    "histream_core/weights/torch_files.py": {"load_torch": {"torch.load"}, "_pickle_in": {"zipfile.ZipFile"}},
}
"""The functions that open files themselves, with what they call."""


def opened(path):
    """Each call that opens a file, as function and call, by the functions that it is in."""

    def visit(node, place):
        for child in ast.iter_child_nodes(node):
            named = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            if isinstance(child, ast.Call) and (call := _opener(child.func)):
                yield place, call
            yield from visit(child, f"{place}.{child.name}".lstrip(".") if named else place)

    return visit(ast.parse(path.read_text(encoding="utf-8")), "")


def _opener(called):
    if isinstance(called, ast.Name):
        return called.id if called.id in NAMES else None
    if not isinstance(called, ast.Attribute):
        return None
    owner = called.value.id if isinstance(called.value, ast.Name) else ""
    if called.attr in FUNCTIONS.get(owner, ()):
        return f"{owner}.{called.attr}"
    return f".{called.attr}" if called.attr in METHODS else None


def test_files_are_opened_by_their_doors_alone():
    """Seen to fail with `open(path)` in a node, and with a door that is not used any more."""
    found = {}
    for path in CODE:
        for place, call in opened(path):
            found.setdefault(path.relative_to(ROOT).as_posix(), {}).setdefault(place, set()).add(call)
    assert found == DOORS


def test_no_opener_is_imported_under_another_name():
    """Seen to fail with `from torch import load` in a module."""
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and not node.level:
                module = {"numpy": "np"}.get((node.module or "").split(".")[0], (node.module or "").split(".")[0])
                for alias in node.names:
                    known = alias.name in FUNCTIONS.get(module, ())
                    assert not known or (alias.name in NAMES and not alias.asname), f"{path}: {alias.name}"
