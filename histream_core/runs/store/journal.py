"""The journal: the folder of a run with its manifest, the clean latent of each finished chunk, snapshots, and a lock.

    manifest.json               the description of the run
    chunks/00000.safetensors    a clean latent each, [B, C, T, H, W] float32, whole chunks; if the plan keeps keys of
                                last steps, also the noisy latent that the last step started from; if its sinks can
                                give way, also the frames that were the chunk's; if a network takes LOW to HIGH, also
                                the LOW estimate, which that network remembers
    snapshots/00012.safetensors the state of caches and VAE before a chunk, if snapshots are on
    texts/0123abcd.safetensors  a prompt's embedding each, if given, so that resuming needs no text encoder
    sound.mka                   the sound that goes into the video, if there is one
    lock                        held while a process works in the folder

Every file is written whole or not at all. A finished chunk carries its checksum and is not changed again; the
manifest is replaced when the run changes, and a new snapshot replaces the one before it. Nothing outside the folder
is read or written. A damaged file is named and refused; nothing is deleted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from ...files.disk import disk_errors, sync_folder, write_whole
from ...files.tensors import TensorFileError, pack, read_safetensors
from ...plan.chunks import Chunk
from ...plan.schedule import Scale
from ...weights.containers import CheckpointError, write_safetensors
from .fingerprint import hash_file, hash_tensor
from .folder import (
    CHUNKS,
    LOCK,
    MANIFEST,
    SNAPSHOTS,
    SOUND,
    TEXTS,
    DamagedRunError,
    check_run,
    inside,
    manifest_text,
    own_folder,
)
from .lock import Lock, take
from .manifest import NEGATIVE, Manifest, chain, from_json, to_json

_NUMBERED = re.compile(r"([0-9]{5}|[1-9][0-9]{5,8})\.safetensors")

TEXT = re.compile(r"[0-9a-f]{16}\.safetensors")
"""Names of the files of embeddings."""

PUT_BACK = ": put it back from a copy"

CHUNK_FORMAT = "1"
"""Version of the files of chunks and snapshots."""


class Journal:
    """The folder of a run, opened and checked; locked until `close`. Use it in a `with` block.

    `finished` is the number of finished chunks, counted from the first of the video; in the folder of a part those
    before it count as finished. With `first_chunks` only that many are read, for a run that is damaged after them.
    """

    def __init__(self, folder: str | Path, *, first_chunks: int | None = None, held: Lock | None = None) -> None:
        """`held` is the lock of the folder, if this process holds it already."""
        self.folder, self._first_chunks = Path(folder), first_chunks
        self._lock = held or lock(self.folder)
        try:
            self.manifest = read_manifest(self.folder)
            self._recipes: list[str] = []
            self._rest = chain(self.manifest)
            self.finished = self._count()
            self._shape: list[int] | None = None
            for index in range(self.manifest.kept.start, self.finished):
                self._check_chunk(index)
            self._check_base()
            self._check_sound()
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        self._lock.release()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def write(
        self,
        index: int,
        latent: Tensor,
        noisy: Tensor | None = None,
        sinks: tuple[int, ...] | None = None,
        low: Tensor | None = None,
    ) -> None:
        """Write the next chunk's latent [B, C, T, H, W] to the disk; `noisy` is the latent its last step started from.

        `sinks` are the frames of the anchor that it saw, stored where they can give way; `low` its LOW estimate, stored
        where a network takes it to HIGH.

        Raises ValueError for one that is not float32 or not finite, and OSError for a full disk; the run is then
        unchanged and can be resumed.
        """
        if index != self.finished or index not in self.manifest.kept or self._first_chunks is not None:
            raise ValueError(f"chunk {index} cannot follow: {self.finished} chunks are finished")
        given = {"latent": latent, "noisy": noisy, "sinks": torch.tensor(sinks or (), dtype=torch.long), "low": low}
        tensors = {name: given[name].detach().cpu().contiguous() for name in self._names(index)}
        self._check_tensors(index, tensors, f"chunk {index}")
        previous = self.recipe(index - 1) if index else ""
        metadata = {
            "format": CHUNK_FORMAT,
            "chunk": str(index),
            "previous": previous,
            "recipe": self.recipe(index),
            **{_checksum(name): hash_tensor(tensor) for name, tensor in tensors.items()},
        }
        write_whole(chunk_path(self.folder, index), pack(tensors, metadata))
        self.finished += 1

    def read(self, index: int) -> Tensor:
        """The latent of a finished chunk, [B, C, T, H, W] float32. DamagedRunError names what is wrong."""
        return self._read(index)["latent"]

    def read_noisy(self, index: int) -> Tensor:
        """The noisy latent that a finished chunk's last step started from, if the plan keeps it. Raises as `read`."""
        return self._read(index)["noisy"]

    def read_low(self, index: int) -> Tensor:
        """The LOW estimate of a finished chunk, if a network takes it to HIGH. Raises as `read`."""
        return self._read(index)["low"]

    def read_sinks(self, chunk: Chunk) -> tuple[int, ...]:
        """The frames of the anchor that a finished chunk saw, if the plan lets them give way. Raises as `read`."""
        return tuple(self._read(chunk.index)["sinks"].tolist())

    def _names(self, index: int) -> tuple[str, ...]:
        """Names of the tensors that are stored for a chunk."""
        plan = self.manifest.plan
        noisy = ("noisy",) if plan.keeps_steps and plan.chunks[index].steps else ()
        low = ("low",) if self.manifest.keeps_low and plan.chunks[index].steps else ()
        return ("latent", *noisy, *(("sinks",) if plan.sinks else ()), *low)

    def _read(self, index: int) -> dict[str, Tensor]:
        path = chunk_path(self.folder, index)
        tensors, metadata = _load(path)
        if tensors.keys() != {*self._names(index)}:
            held, wanted = ", ".join(tensors) or "nothing", " and ".join(self._names(index))
            raise DamagedRunError(f"{path} holds {held}: it must hold one {wanted}")
        previous = self.recipe(index - 1) if index else ""
        wanted = {"format": CHUNK_FORMAT, "chunk": str(index), "recipe": self.recipe(index), "previous": previous}
        for name, value in wanted.items():
            if value and metadata.get(name) != value:
                raise DamagedRunError(
                    f"{path} was made by another run or is in the wrong place: its {name} is "
                    f"{metadata.get(name, 'missing')[:16]}, {value[:16]} is right"
                )
        try:
            self._check_tensors(index, tensors, str(path))
        except ValueError as error:
            raise DamagedRunError(str(error)) from error
        for name, tensor in tensors.items():
            if metadata.get(_checksum(name)) != hash_tensor(tensor):
                raise DamagedRunError(f"{path} was changed after it was written: its checksum does not fit")
        self._recipes[index] = metadata.get("recipe", "")  # of a shared chunk: what the next one has to follow
        return tensors

    def recipe(self, index: int) -> str:
        """The hash of everything that a chunk's latent depends on."""
        self._recipes += islice(self._rest, max(0, index + 1 - len(self._recipes)))
        return self._recipes[index]

    def texts(self) -> list[Tensor]:
        """The embedding of each section's prompt.

        Raises DamagedRunError that names what is wrong with a file, and ValueError if none are stored.
        """
        if not text_paths(self.folder):
            raise ValueError(f"the run in {self.folder} keeps no embeddings of its prompts: give them again")
        return [self._text(section.text) for section in self.manifest.sections]

    def negative(self) -> Tensor | None:
        """The embedding of the negative prompt; None if there is none. Raises DamagedRunError."""
        name = self.manifest.fingerprint.get(NEGATIVE)
        return None if name is None else self._text(name)

    def stored_texts(self) -> list[Tensor]:
        """The embeddings that the folder holds, that of the negative prompt last; none where none are stored."""
        if not text_paths(self.folder):
            return []
        negative = self.negative()
        return [*self.texts(), *([] if negative is None else [negative])]

    def _text(self, name: str) -> Tensor:
        path = text_path(self.folder, name)
        tensors, _ = _load(path)
        if tensors.keys() != {"text"} or hash_tensor(tensors["text"]) != name:
            raise DamagedRunError(f"{path} does not hold the prompt's embedding that the run was made with{PUT_BACK}")
        return tensors["text"]

    def frames(self, wanted: range) -> Tensor:
        """Latent frames [B, C, T, H, W] of finished chunks."""
        parts = []
        for chunk in self.manifest.plan.chunks:
            start, stop = max(wanted.start, chunk.frames.start), min(wanted.stop, chunk.frames.stop)
            if start < stop:
                parts.append(self.read(chunk.index)[:, :, start - chunk.frames.start : stop - chunk.frames.start])
        return torch.cat(parts, dim=2)

    def rewrite(self, manifest: Manifest) -> None:
        """Replace the manifest by that of a longer run, to which the finished chunks must belong too."""
        new = chain(manifest)
        if any(one != other for one, other in zip(islice(chain(self.manifest), self.finished), new, strict=False)):
            raise ValueError("the finished chunks were made in another way: branch instead")
        write_manifest(self.folder, manifest)
        self.manifest, self._rest = manifest, islice(chain(manifest), self.finished, None)
        self._recipes = [self.recipe(index) for index in range(self.finished)]

    def write_snapshot(self, position: int, decoded: int, tensors: Mapping[str, Tensor]) -> None:
        """Write the state before chunk `position`, with `decoded` chunks through the VAE; delete older snapshots.

        Raises OSError if there is no room.
        """
        path = _snapshot_path(self.folder, position)
        metadata = {
            "format": CHUNK_FORMAT,
            "position": str(position),
            "decoded": str(decoded),
            "recipe": self.recipe(position - 1) if position else "",
            "sha256": _hash_all(tensors),
        }
        layout = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
        with disk_errors(path):
            own_folder(path.parent)
            try:
                write_safetensors(path, layout, tensors.__getitem__, metadata)
            except CheckpointError as error:
                raise OSError(f"{error}, or turn snapshots off") from error
            sync_folder(path.parent)
        for older in snapshot_paths(self.folder):
            if older != path:
                older.unlink()

    def newest_snapshot(self) -> tuple[int, int, dict[str, Tensor]] | None:
        """Position, decoded chunks and tensors of the newest snapshot that is whole and of this run, or None."""
        for path in reversed(snapshot_paths(self.folder)):
            try:
                tensors, metadata = _load(path)
            except DamagedRunError:
                continue
            position, decoded = (metadata.get(name, "") for name in ("position", "decoded"))
            if not (position.isdecimal() and decoded.isdecimal() and int(position) <= self.finished):
                continue
            recipe = self.recipe(int(position) - 1) if int(position) else ""
            if (metadata.get("recipe"), metadata.get("sha256")) == (recipe, _hash_all(tensors)):
                return int(position), int(decoded), tensors
        return None

    def _check_chunk(self, index: int) -> None:
        """Read a chunk. Raises DamagedRunError that says what is wrong and what can be done."""
        try:
            self.read(index)
        except DamagedRunError as error:
            ways = [f"histream branch {self.folder} NEW --from {index} goes on from what is before it"] if index else []
            if self.manifest.part:
                ways = [f"histream clean {self.folder} and submit the list again, which makes the part anew"]
            why = str(error).removesuffix(PUT_BACK)
            raise DamagedRunError(", or ".join([f"{why}{PUT_BACK}", *ways])) from error

    def _count(self) -> int:
        """Count the finished chunks. A gap is refused: a file was lost, and it is not made again silently."""
        kept = self.manifest.kept
        there = sorted(chunk_indices(self.folder))[: self._first_chunks]
        count = next((i for i, index in enumerate(there) if kept.start + i != index), len(there))
        if count < len(there):
            raise DamagedRunError(
                f"{chunk_path(self.folder, kept.start + count)} is missing, but chunk {there[count]} is there: "
                "put it back, or branch from an earlier chunk"
            )
        if count > len(kept):
            raise DamagedRunError(f"{self.folder} has {count} chunks, but its run has {len(kept)}")
        return kept.start + count

    def _check_base(self) -> None:
        base = self.manifest.base
        if base and self.finished < base.chunks and self._first_chunks is None:
            raise DamagedRunError(
                f"{chunk_path(self.folder, self.finished)} is missing: the first {base.chunks} chunks of this run come "
                f"from {base.run}, branch again"
            )

    def _check_sound(self) -> None:
        path = sound_path(self.folder, self.manifest)
        if path is None:
            return
        if not path.is_file():
            raise DamagedRunError(f"{path} is missing: put back the sound that the run was begun with")
        if hash_file(path) != self.manifest.settings.sound:
            raise DamagedRunError(
                f"{path} was changed after it was written, its checksum does not fit: "
                "put back the sound that the run was begun with"
            )

    def _check_tensors(self, index: int, tensors: Mapping[str, Tensor], name: str) -> None:
        """Raise ValueError for tensors of a chunk that no run could have made."""
        for part, tensor in tensors.items():
            if part == "sinks":
                self._check_sinks(index, tensor, name)
            else:
                self._check_latent(index, tensor, name, Scale.LOW if part == "low" else Scale.HIGH)

    def _check_sinks(self, index: int, sinks: Tensor, name: str) -> None:
        plan = self.manifest.plan
        start, most = plan.chunks[index].frames.start, plan.window.anchor_frames
        found = sinks.tolist() if sinks.dtype == torch.long and sinks.shape == (min(start, most),) else None
        if found is None or found != sorted({*found} & {*range(start)}):
            raise ValueError(f"{name} holds no {min(start, most)} sinks before frame {start}")

    def _check_latent(self, index: int, latent: Tensor, name: str, scale: Scale) -> None:
        frames, grid = self.manifest.plan.chunks[index].frames, self.manifest.plan.grids[scale]
        if latent.dtype != torch.float32:
            raise ValueError(f"{name} holds {latent.dtype}: latents are kept in torch.float32")
        wanted = [*(self._shape or latent.shape[:2]), len(frames), *grid]
        if list(latent.shape) != wanted:
            raise ValueError(f"{name} has shape {list(latent.shape)}: this run's is {wanted}")
        if not torch.isfinite(latent).all():
            raise ValueError(f"{name} holds NaN or infinity: the run that made it has failed")
        self._shape = list(latent.shape[:2])


def chunk_path(folder: Path, index: int) -> Path:
    return folder / CHUNKS / f"{index:05d}.safetensors"


def chunk_indices(folder: Path) -> list[int]:
    """Indices of the chunk files, in any order. Files of other names are ignored."""
    return [int(path.stem) for path in _numbered(folder / CHUNKS)]


def _snapshot_path(folder: Path, position: int) -> Path:
    return folder / SNAPSHOTS / f"{position:05d}.safetensors"


def snapshot_paths(folder: Path) -> list[Path]:
    """Paths of the snapshots, oldest first."""
    return _numbered(folder / SNAPSHOTS)


def text_path(folder: Path, name: str) -> Path:
    return folder / TEXTS / f"{name[:16]}.safetensors"


def text_paths(folder: Path) -> list[Path]:
    """Paths of the stored embeddings of prompts."""
    texts = inside(folder / TEXTS)
    return sorted(path for path in texts.glob("*") if TEXT.fullmatch(path.name))


def write_texts(folder: Path, texts: Iterable[Tensor]) -> None:
    """Write embeddings of prompts, each under its hash."""
    for text in texts:
        own_folder(folder / TEXTS)
        path = text_path(folder, hash_tensor(text))
        write_whole(path, pack({"text": text.detach().cpu().contiguous()}, {}))


def sound_path(folder: Path, manifest: Manifest) -> Path | None:
    """Path of the sound of a run; None if it has none."""
    return inside(folder / SOUND) if manifest.settings.sound else None


def lock(folder: Path) -> Lock:
    """Lock a run's folder for this process. Raises FileNotFoundError, DamagedRunError or RunInUseError."""
    check_run(folder)
    return take(folder / LOCK)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a run. Raises DamagedRunError that says what is wrong with it."""
    text = manifest_text(folder)
    try:
        return from_json(text)
    except ValueError as error:
        raise DamagedRunError(f"{folder / MANIFEST} {error}") from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_whole(folder / MANIFEST, to_json(manifest).encode())


def _numbered(folder: Path) -> list[Path]:
    if not inside(folder).is_dir():
        return []
    paths = (path for path in folder.iterdir() if _NUMBERED.fullmatch(path.name))
    return sorted(paths, key=lambda path: int(path.stem))


def _checksum(name: str) -> str:
    """The key of a tensor's checksum in the metadata of a chunk."""
    return "sha256" if name == "latent" else f"sha256_{name}"


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    inside(path.parent)
    inside(path)
    try:
        return read_safetensors(path)
    except TensorFileError as error:
        raise DamagedRunError(f"{str(error).removesuffix(': get it again')}{PUT_BACK}") from error
    except OSError as error:
        why = error.strerror or str(error).removesuffix(": give an ordinary file").removeprefix(f"{path} ")
        raise DamagedRunError(f"{path} cannot be read ({why}){PUT_BACK}") from error


def _hash_all(tensors: Mapping[str, Tensor]) -> str:
    parts = [f"{name} {tensors[name].dtype} {hash_tensor(tensors[name])}" for name in sorted(tensors)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
