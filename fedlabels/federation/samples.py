"""What partitioners and label policies may know of a training set."""

from dataclasses import dataclass

from fedlabels.errors import DataError
from fedlabels.federation.ragged import Indices


@dataclass(frozen=True, eq=False)
class Samples:
    """Classes and origins of samples; their content plays no part in dealing.

    Parameters
    ----------
    labels : ndarray of int64, shape (N,)
        Classes, -1 where not known.
    num_classes : int
        Number of classes C.
    domain : ndarray of int64, shape (N,), or None
        Domain of every sample, if the data set has domains.
    domain_names : tuple of str
        One name a domain.
    owner : ndarray of int64, shape (N,), or None
        Natural client of every sample, if the data set has them.
    owner_names : tuple of str
        One name a natural client.
    given : ndarray of int64, shape (N,), or None
        Labels that clients train on where they are not the truth ``labels``, -1 for a sample that
        nobody labeled; None where they are the truth.

    Raises
    ------
    DataError
        If the arrays differ in length.
    """

    labels: Indices
    num_classes: int
    domain: Indices | None = None
    domain_names: tuple[str, ...] = ()
    owner: Indices | None = None
    owner_names: tuple[str, ...] = ()
    given: Indices | None = None

    def __post_init__(self) -> None:
        for name in ("domain", "owner", "given"):
            values = getattr(self, name)
            if values is not None and values.shape != self.labels.shape:
                raise DataError(f"{len(self.labels)} labels but {name} of shape {values.shape}")

    @property
    def visible(self) -> Indices:
        """Labels that a client can be given, -1 for samples that are unlabeled everywhere."""
        return self.labels if self.given is None else self.given

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Indices) -> "Samples":
        """Return the samples at these positions, in this order; positions may repeat."""
        return Samples(
            self.labels[index],
            self.num_classes,
            None if self.domain is None else self.domain[index],
            self.domain_names,
            None if self.owner is None else self.owner[index],
            self.owner_names,
            None if self.given is None else self.given[index],
        )
