"""Federated averaging.

McMahan et al.: "Communication-Efficient Learning of Deep Networks from Decentralized Data",
AISTATS 2017, arXiv 1602.05629.
"""

from fedlabels.strategies.base import CohortStrategy


class FedAvg(CohortStrategy):
    """The new model is the mean of the clients' models, weighted by their number of examples."""
