import pytest


@pytest.fixture(autouse=True)
def _no_shared_roots(monkeypatch, tmp_path):
    """No data of this machine: neither shared folders nor the user's cache."""
    monkeypatch.delenv("FEDLABELS_DATA", raising=False)
    monkeypatch.setattr("fedlabels.data.roots.SYSTEM", tmp_path / "system")
    monkeypatch.setattr("fedlabels.data.roots.CACHE", tmp_path / "cache")
