"""Decoding beside sampling, on the CPU, where both are threads."""

import threading

import pytest
import torch

from histream_core.vae.ahead import work_ahead

CPU = torch.device("cpu")


def test_results_come_in_order_and_the_next_item_is_made_meanwhile():
    """Seen to fail when each result is waited for before the next item is asked for, and when the first one waits."""
    made, next_is_made = [], [threading.Event() for _ in range(6)]

    def items():
        for n in range(5):
            made.append(n)
            next_is_made[n].set()
            yield torch.tensor(n)

    def work(item):
        n = int(item)
        if 0 < n < 4:
            assert next_is_made[n + 1].wait(timeout=60)  # never, if the item behind is not made before this is done
        return item * 10

    found = []
    for result in work_ahead(items(), work, CPU):
        if not found:
            assert made == [0]
        found.append(int(result))
    assert found == [0, 10, 20, 30, 40]


def test_an_error_comes_out_where_the_result_would_and_items_can_end_early():
    def work(item):
        if int(item) == 2:
            raise ValueError("no")
        return item

    results = work_ahead(iter(torch.arange(5)), work, CPU)
    assert [int(next(results)) for _ in range(2)] == [0, 1]
    with pytest.raises(ValueError, match="no"):
        next(results)
    stopped = work_ahead(iter(torch.arange(5)), lambda item: item, CPU)
    assert int(next(stopped)) == 0
    stopped.close()
    assert not list(work_ahead(iter(()), work, CPU))
