from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import vmap

from fedlabels import losses
from fedlabels.errors import ConfigError

YES, NO = torch.tensor(True), torch.tensor(False)


def trees() -> tuple[dict[str, Tensor], ...]:
    def tree(weight: float, variance: float, count: int) -> dict[str, Tensor]:
        return {
            "weight": torch.tensor([weight, 0.1], dtype=torch.float64),
            "running_var": torch.tensor([variance], dtype=torch.float64),
            "num_batches": torch.tensor(count),
        }

    return tree(1.0, 1.0, 5), tree(1.5, 0.2, 8), tree(0.7, 0.3, 7)


def merge(stepped: Tensor = YES, **options: Any) -> dict[str, Tensor]:
    return losses.client_delta_merge(*trees(), parameters={"weight"}, stepped=stepped, **options)


def test_parameters_take_both_changes() -> None:
    assert merge()["weight"].tolist() == pytest.approx([1.0 + 0.5 - 0.3, 0.1])


def test_float_buffers_are_averaged_and_integer_ones_kept() -> None:
    """The sum of two changes would give 1 - .8 - .7 < 0, no variance."""
    assert merge()["running_var"].item() == pytest.approx(0.25)
    assert merge()["num_batches"].item() == 5


def test_without_unlabeled_step_the_local_model_goes_up_bit_for_bit() -> None:
    merged, local = merge(NO), trees()[1]
    assert merged["weight"].equal(local["weight"])
    assert merged["running_var"].equal(local["running_var"])


def test_mean_takes_half_of_each_change() -> None:
    assert merge(merge="mean")["weight"].tolist() == pytest.approx([1.0 + 0.25 - 0.15, 0.1])


def test_student_that_started_from_the_local_model_is_the_sum() -> None:
    student = trees()[2]
    merged = merge(phase2_start="local")
    assert merged["weight"].equal(student["weight"])
    assert merged["running_var"].equal(student["running_var"])
    half = merge(phase2_start="local", merge="mean")
    assert half["weight"].tolist() == pytest.approx([0.85, 0.1])


def test_vmap_over_clients_with_and_without_step() -> None:
    stacked = [{k: torch.stack([v, v]) for k, v in tree.items()} for tree in trees()]

    def one(*parts: Any) -> dict[str, Tensor]:
        return losses.client_delta_merge(*parts[:3], parameters={"weight"}, stepped=parts[3])

    merged = vmap(one)(*stacked, torch.tensor([True, False]))
    for k, flag in enumerate((YES, NO)):
        for name, expected in merge(flag).items():
            assert merged[name][k].equal(expected)


def test_unknown_merge_is_refused() -> None:
    with pytest.raises(ConfigError, match="sum, mean"):
        merge(merge="max")
