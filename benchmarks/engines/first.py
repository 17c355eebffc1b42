"""Write the first weights of cells: ``python -m engines.first FOLDER SEED CELL ...``."""

import sys
from pathlib import Path

import numpy as np

from engines.fedlabels import first_weights
from engines.work import CELLS, Job


def main() -> None:
    folder, seed, *cells = sys.argv[1:]
    for cell in cells:
        job = Job("", cell, Path(folder), Path(folder), 0, 0, int(seed))
        arrays = first_weights(job)
        assert sum(a.size for a in arrays) == CELLS[cell].parameters
        np.savez(job.folder / f"{cell}.npz", **{f"{k}": a for k, a in enumerate(arrays)})


if __name__ == "__main__":
    main()
