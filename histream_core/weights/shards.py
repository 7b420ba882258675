"""Sets of files that hold one model: which files belong together, and what to do with a folder."""

import re
from pathlib import Path

from ..files.reading import parse_json, read_bytes
from .errors import CheckpointError, first_five

SUFFIXES = (".safetensors", ".sft", ".pt", ".pth", ".ckpt", ".bin")

INDEX = ".index.json"
"""The end of the name of a file that lists the shards of a model."""

_SHARD = re.compile(r"(?P<start>.+)-\d{5}-of-(?P<count>\d{5})(?P<end>\.\w+)")
_MOST_SHARDS, _LONGEST_INDEX = 1000, 10_000_000

_DISTRIBUTED = (
    "is saved by torch.distributed.checkpoint, in a form that holds code: make one file of its folder with "
    "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE.pt`"
)


def files_of(path: Path) -> list[Path]:
    """The files with the tensors of a model: those of an index, all shards of which one was given, or the file itself.

    Raises CheckpointError for a folder, for shards that are not there, and for what torch.distributed saved.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} {_what_to_give(path)}")
    if path.suffix == ".distcp" or path.name == ".metadata":
        raise CheckpointError(f"{path} {_DISTRIBUTED}")
    if path.name.endswith(INDEX):
        return _present(path, _indexed(path))
    shard = _SHARD.fullmatch(path.name)
    if not shard or not 1 <= (count := int(shard["count"])) <= _MOST_SHARDS:
        return [path]
    names = [f"{shard['start']}-{number:05}-of-{count:05}{shard['end']}" for number in range(1, count + 1)]
    return _present(path, names) if path.exists() else [path]


def _present(path: Path, names: list[str]) -> list[Path]:
    """The files of these names beside `path`, which must be there."""
    missing = [name for name in names if not (path.parent / name).exists()]
    if missing:
        raise CheckpointError(
            f"{path} is one part of a model in {len(names)} files, and {len(missing)} of them are not beside it "
            f"({first_five(missing)}): get them all"
        )
    return [path.parent / name for name in names]


def _indexed(path: Path) -> list[str]:
    """The names of the files in an index. Raises CheckpointError for an index that is none."""
    try:
        index = parse_json(read_bytes(path, _LONGEST_INDEX))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist: check the name") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as an index of weights ({error}): get it again") from error
    told = index.get("weight_map") if isinstance(index, dict) else None
    names = list(dict.fromkeys(told.values())) if isinstance(told, dict) and _are_texts(told) else []
    plain = all(name.endswith(SUFFIXES) and not re.search(r"[/\\:\0]", name) for name in names)
    if not names or not plain or len(names) > _MOST_SHARDS:
        raise CheckpointError(f"{path} is no index of weights that lie beside it: get it again")
    return names


def _are_texts(told: dict) -> bool:
    return all(isinstance(name, str) for name in told.values())


def _what_to_give(folder: Path) -> str:
    """The rest of a sentence about a folder: what it is, and what to give instead."""
    names = sorted(entry.name for entry in folder.iterdir())
    if ".metadata" in names or any(name.endswith(".distcp") for name in names):
        return _DISTRIBUTED
    if "zero_to_fp32.py" in names:
        return "is a checkpoint of DeepSpeed: make one file of it with its own zero_to_fp32.py and give that"
    inside = [name for name in names if name.endswith(INDEX)] or [name for name in names if name.endswith(SUFFIXES)]
    if inside:
        return f"is a folder: give the file in it ({first_five(inside[:3])})"
    parts = [name for name in ("transformer", "dit", "model") if (folder / name).is_dir()]
    return f"is a folder: give the file in {folder / parts[0]}" if parts else "is a folder: give a weights file"
