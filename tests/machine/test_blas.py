"""Linear algebra of the server: its bits must not depend on the cores of the machine."""

from threadpoolctl import threadpool_info, threadpool_limits

from fedlabels.machine.blas import blas, one_blas_thread
from fedlabels.strategies.fedld import FedLD
from tests.end_to_end.harness import TINY, config_of, simulate


def threads():
    """Of numpy's library; scikit-learn loads another one, which computes nothing of a run."""
    return [
        one["num_threads"]
        for one in threadpool_info()
        if one["user_api"] == "blas" and "scipy.libs" not in one["filepath"]
    ]


def test_one_thread_and_as_before():
    with threadpool_limits(2, user_api="blas"):
        before = threads()
        with one_blas_thread():
            assert set(threads()) <= {1}
        assert threads() == before


def test_the_library_is_named():
    assert blas()
    assert "\n" not in blas()


def test_a_run_multiplies_on_one_thread(tmp_path, monkeypatch):
    """Eigenvectors of 100 clients differ in the last bits on two threads."""
    seen, merge = [], FedLD.merge

    def looking(self, *arguments):
        seen.extend(threads())
        return merge(self, *arguments)

    monkeypatch.setattr(FedLD, "merge", looking)
    with threadpool_limits(2, user_api="blas"):
        before = threads()
        simulate(tmp_path / "run", config_of(*TINY, "method=fedld", "rounds=1"))
        assert threads() == before
    assert len(seen) == len(before)
    assert set(seen) <= {1}
