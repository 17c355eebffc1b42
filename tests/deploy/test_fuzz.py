"""Changed replies of a device, some hundred of them; `tests.deploy.fuzz` makes thousands."""

from pathlib import Path

import pytest

from tests.deploy.fuzz import METHODS, fuzz


@pytest.mark.parametrize("method", METHODS)
def test_the_run_goes_on_and_the_model_is_as_without_the_device(
    method: str, tmp_path: Path
) -> None:
    found = fuzz(method, 120, 7, tmp_path)
    assert found.get("ended", 0) == found.get("unequal", 0) == found.get("not sound", 0) == 0
    assert found["others not ok"] == 0
    assert found["rejected"] > 40
    assert found["ok"] > 10  # what changes nothing that counts
