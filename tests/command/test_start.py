"""What a command does before it begins."""

import gc
from contextlib import suppress

import pytest

from fedlabels import command
from fedlabels.command import uncollected


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_collected_again_once_all_is_loaded(enabled, monkeypatch):
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with suppress(KeyError), uncollected():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() == enabled
        monkeypatch.setattr(command.Command, "load", lambda self: lambda given: len(given))
        assert command.main(["run", "a=1", "b=2"]) == 2
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()
