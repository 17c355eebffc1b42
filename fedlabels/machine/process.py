"""What a worker sets for the whole process it is in, and how it was before."""

import torch


class ProcessSettings:
    """Threads and the treatment of denormals as they are now; a GPU's are `cohort.device.tune`'s.

    Other code in this process would get other figures, or slower ones, from what is left behind.
    """

    def __init__(self) -> None:
        self._threads, self._flushes = torch.get_num_threads(), _flushes_denormals()

    def put_back(self) -> None:
        """Set them as they were."""
        torch.set_num_threads(self._threads)
        torch.set_flush_denormal(self._flushes)


def _flushes_denormals() -> bool:
    """Tell by an example: torch can set it, but not say it."""
    return float(torch.tensor(1e-310, dtype=torch.float64) * 1) == 0
