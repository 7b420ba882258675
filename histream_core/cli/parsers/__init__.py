"""The options of each verb. They load neither torch nor what runs the verb, so that `--help` is there at once."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Later:
    """A function in a module of `verbs`, which is imported when the function is called."""

    module: str
    function: str

    def find(self) -> Any:
        """Import the module, and return the function."""
        return getattr(import_module(f"..verbs.{self.module}", __package__), self.function)

    def __call__(self, args: argparse.Namespace) -> Any:
        return self.find()(args)
