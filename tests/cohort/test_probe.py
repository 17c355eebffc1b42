"""Choices by measurement: the faster way, and how many clients fit into memory."""

import logging

import pytest
import torch

from fedlabels.cohort.device import CPU
from fedlabels.cohort.probe import CPU_STACK, FIRST_STACK, StackSize, fastest, seconds

MIB = 2**20


class Fake:
    """A memory of a size, of which every client takes a part."""

    def __init__(self, free: int, each: int) -> None:
        self.left, self.each, self.clients, self.released = free, each, 0, 0

    def free(self) -> int:
        return self.left

    def start(self) -> None:
        self.clients = 0

    def taken(self) -> int:
        return self.clients * self.each

    def release(self) -> None:
        self.released += 1


def test_the_median_of_calls_after_the_first_counts():
    ticks = iter([0, 100, 100, 103, 103, 104, 104, 106])  # 100 to warm up, then 3, 1 and 2
    calls = []
    took = seconds(lambda: calls.append(1), CPU, repeats=3, clock=lambda: next(ticks))
    assert took == 2
    assert len(calls) == 4


def test_the_fastest_way_is_taken_and_logged(caplog):
    with caplog.at_level(logging.INFO):
        assert fastest({"a": lambda: 0.2, "b": lambda: 0.1, "c": lambda: 0.3}, "tea") == "b"
    assert "tea: b (a 200.00 ms, b 100.00 ms, c 300.00 ms)" in caplog.text


def test_a_way_that_fails_is_left_out():
    def broken() -> float:
        raise torch.cuda.OutOfMemoryError("full")

    assert fastest({"a": broken, "b": lambda: 1.0}, "x") == "b"
    with pytest.raises(torch.cuda.OutOfMemoryError):
        fastest({"a": broken}, "x")


def test_a_cpu_stacks_a_fixed_number():
    assert StackSize(None, None).clients == CPU_STACK
    size = StackSize(5, None)
    size.watch()
    size.learn(5)
    assert size.clients == 5


def test_a_gpu_takes_what_fits_by_what_the_second_stack_took():
    memory = Fake(free=1000 * MIB, each=10 * MIB)
    size = StackSize(None, memory)
    assert size.clients == FIRST_STACK
    size.watch()
    memory.clients = 1
    size.learn(1)  # says too little
    assert size.clients == FIRST_STACK
    size.watch()
    memory.clients = 4 * 7  # the first one tries more than it needs
    size.learn(4)
    assert size.clients == FIRST_STACK
    size.watch()
    memory.clients = 3
    size.learn(3)
    assert size.clients == 80  # 0.8 of the memory
    memory.each *= 10
    size.learn(3)
    assert size.clients == 80  # measured once


def test_a_given_number_is_not_measured():
    size = StackSize(7, Fake(free=10, each=10))
    size.watch()
    size.learn(7)
    assert size.clients == 7


def test_what_does_not_fit_is_halved_down_to_one(caplog):
    memory = Fake(free=1, each=1)
    size = StackSize(9, memory)
    found = []
    for _ in range(4):
        size.halve(size.clients)
        found.append(size.clients)
    assert found == [4, 2, 1, 1]
    assert memory.released == 4
    assert "a stack of 9 clients does not fit into memory; going on with 4" in caplog.text
