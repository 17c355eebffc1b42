"""Multi-layer perceptron: for 28x28 images the 784-200-200-10 network of McMahan et al. 2017."""

from itertools import pairwise

from torch import nn

from fedlabels.cohort.types import DataSpec
from fedlabels.errors import ConfigError
from fedlabels.models.base import Classifier, flat_size
from fedlabels.models.recipe import Norm, Recipe


class MLP(Classifier):
    """Dense layers with ReLU; 199,210 parameters at 1x28x28 and 10 classes.

    Parameters
    ----------
    spec : DataSpec
        Samples of any shape; they are flattened.
    hidden : sequence of int
        Widths of the hidden layers, at least one, each >= 1.
    norm : str or Recipe
        Normalization after each hidden layer; see :class:`~fedlabels.models.recipe.Recipe`. With
        ``"ws"`` these are standardized only if ``ws_linear`` is set.

    Raises
    ------
    ConfigError
        If there is no hidden layer or a width is below 1.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        hidden: tuple[int, ...] = (200, 200),
        norm: Norm | Recipe = "none",
    ) -> None:
        super().__init__()
        if not hidden or min(hidden) < 1:
            raise ConfigError(f"hidden must hold at least one width, each >= 1; got {hidden}")
        recipe = Recipe.of(norm)
        layers: list[nn.Module] = [nn.Flatten()]
        for place, (width_in, width_out) in enumerate(pairwise((flat_size(spec), *hidden))):
            layers.append(recipe.linear(width_in, width_out, after_relu=place > 0))
            layers += [*recipe.norms_of(width_out), recipe.relu()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(hidden[-1], spec.num_classes)
