"""What all tests of devices share."""

import time

import pytest

from fedlabels.deploy import pulls


class Hurry:
    """A clock that goes on by a minute at least where somebody would sleep."""

    def __init__(self) -> None:
        self.slept = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.slept

    def sleep(self, seconds: float) -> None:
        self.slept += max(seconds, 60.0)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> Hurry:
    """Let nobody in this process wait for a device that will not answer."""
    clock = Hurry()
    monkeypatch.setattr(pulls, "time", clock)
    return clock
