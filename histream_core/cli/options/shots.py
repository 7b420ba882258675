"""The options of a shot: values of a list under the names of `histream demo`, `render` and `v2v`, and their checks."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ...farm.shots import Shot
from ...farm.submit import Needs
from ...plan.parts import parts_of
from .adding import DEMO
from .common import READ

NOT_OF_A_SHOT = ("out", "run_dir", "overwrite", "discard", "draft", "review", "gpus", "split", "help")
"""Options of these verbs that the farm decides."""


class ShotOptions:
    """Reads the options of shots by the parsers of the verbs themselves."""

    @cached_property
    def parsers(self) -> Mapping[str, argparse.ArgumentParser]:
        """The parsers of the verbs that make a video, and of `resume`."""
        from .. import Parser
        from ..parsers import restyle, runs, videos

        verbs = Parser(prog="histream").add_subparsers(dest="verb")
        for module in (videos, restyle, runs):
            for _ in module.add_to(verbs):
                pass
        return verbs.choices

    @cached_property
    def files(self) -> set[str]:
        """Names of the options that name a file."""
        actions = (action for verb in ("demo", "render", "v2v") for action in self.parsers[verb]._actions)
        return {action.dest for action in actions if action.type is Path} | {*READ}

    def resolved(self, shot: Shot) -> Shot:
        """The shot with names as in the code, and with files by absolute paths. Raises ValueError."""
        options = {}
        for key, value in shot.options.items():
            name = key.replace("-", "_")
            if name in NOT_OF_A_SHOT:
                raise ValueError(f'"{key}" is not for a shot, the farm decides it: leave it out')
            if name == "size" and isinstance(value, list):
                value = "x".join(map(str, value))
            if not isinstance(value, (str, int, float)):
                raise ValueError(f'"{key}" is a {type(value).__name__}: write text, a number, true or false')
            options[name] = self._found(shot.folder, name, value) if isinstance(value, str) else value
        return replace(shot, options=options)

    def with_usual(self, shot: Shot, usual: Mapping[str, Any]) -> Shot:
        """The shot with those of the usual options that its verb has and that it does not name itself."""
        named = {name.replace("-", "_") for name in shot.options}
        known = {action.dest for action in self.parsers[_verb({**usual, **shot.options})]._actions}
        more = {name: value for name, value in usual.items() if name in known - named}
        return replace(shot, options={**more, **shot.options})

    def files_of(self, shot: Shot) -> Iterator[tuple[str, Path]]:
        """The files that a shot names, by its options, relative to its folder."""
        for key, value in shot.options.items():
            if isinstance(value, str) and self._is_file(key.replace("-", "_"), value):
                yield key, shot.folder / value

    def args(self, shot: Shot, folder: Path) -> argparse.Namespace:
        """The options of the verb that makes a shot in `folder`, as the command line has them. Raises ValueError."""
        verb = _verb(shot.options)
        parser = self.parsers[verb]
        known = {action.dest: action for action in parser._actions}
        for name in shot.options:
            if name not in known:
                raise ValueError(f'"{name}" is no option of histream {verb}: see histream {verb} --help')
        positional = [str(shot.options[name]) for name in shot.options if not known[name].option_strings]
        named = {name: value for name, value in shot.options.items() if known[name].option_strings}
        words = [*_words(parser, named), f"--run-dir={folder}", *(["--", *positional] if positional else [])]
        return parser.parse_args(words, argparse.Namespace(verb=verb))

    def resume_args(self, shot: Shot, folder: Path) -> argparse.Namespace:
        """The options of `resume` for the run of a shot in `folder`: those of the shot that it has too."""
        parser = self.parsers["resume"]
        options = {"source" if name == "video" else name: value for name, value in shot.options.items()}
        known = {action.dest for action in parser._actions if action.option_strings}
        words = _words(parser, {name: value for name, value in options.items() if name in known})
        return parser.parse_args([*words, "--", str(folder)], argparse.Namespace(verb="resume"))

    def check(self, shot: Shot, folder: Path, *, begun: bool) -> Needs:
        """Check a shot as its verb does before it loads the weights, with a run that has `begun` already or not.

        Raises ValueError and OSError.
        """
        from ...runs.store.video import run_bytes
        from ..verbs.videos import check_kept, keeps_low

        args = self.args(shot, folder)
        checked = args.check(args)
        plan, num_bytes = checked.shown.plan, 0
        if not begun:
            settings, sound = check_kept(args, checked)
            num_bytes = sum(run_bytes(plan, settings, sound=sound, low=keeps_low(args)).values())
        width, height = plan.size
        pixels, notes = plan.num_pixel_frames * width * height, checked.source.notes_on(plan)
        return Needs(plan.num_chunks, pixels, num_bytes, parts_of(plan), notes)

    def _found(self, folder: Path, name: str, value: str) -> str:
        """The value of an option; a file by its absolute path."""
        return str((folder / value).resolve()) if self._is_file(name, value) else value

    def _is_file(self, name: str, value: str) -> bool:
        is_text = name == "timeline" and value.removeprefix("\ufeff").lstrip().startswith("[")
        return name in self.files and not is_text and not (name == "model" and value == DEMO)


def _verb(options: Mapping[str, Any]) -> str:
    """The verb that makes a shot with these options."""
    return "v2v" if "video" in options else "render" if "model" in options else "demo"


def _words(parser: argparse.ArgumentParser, options: Mapping[str, Any]) -> Iterator[str]:
    """Options as words of a command line."""
    flags = {action.dest: action for action in parser._actions}
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is True and flags[name].nargs == 0:
            yield option
        elif value is False and flags[name].nargs == 0:
            no = f"--no-{name.replace('_', '-')}"
            yield from [no] if no in flags[name].option_strings else []
        else:
            yield f"{option}={value}"
