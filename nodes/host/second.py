"""The second set of weights of an SGF+ file: a MODEL beside the first one, which the host loads and moves with it."""

from collections.abc import Mapping
from typing import Any

from ...histream_core.weights.key_names import SECOND

SECOND_KEY = "histream_second"
"""The key of the second MODEL among the additional models of the first."""


def split_sets(weights: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The weights of the first set and of the second one, under the names of one model each; the latter may be none."""
    second = {key.removeprefix(SECOND): x for key, x in weights.items() if key.startswith(SECOND)}
    return {key: x for key, x in weights.items() if not key.startswith(SECOND)}, second


def set_second(model, second) -> None:
    """Put the MODEL of the second set on that of the first."""
    model.set_additional_models(SECOND_KEY, [second])


def second_of(model):
    """The MODEL of the second set of weights; None where a MODEL has one set."""
    return next(iter(model.get_additional_models_with_key(SECOND_KEY)), None)
