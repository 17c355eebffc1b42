"""A convolutional network for time series, such as those of wearable sensors.

The fully convolutional network of Wang, Yan and Oates (IJCNN 2017, arXiv 1611.06455), made small:
fewer channels, one kernel size, and pooling, which widens what the last layer sees.
"""

from torch import nn

from fedlabels.cohort.types import DataSpec
from fedlabels.errors import ConfigError
from fedlabels.models.base import Classifier, series_shape
from fedlabels.models.layers import GlobalAverage
from fedlabels.models.recipe import Norm, Recipe

LEAST_LENGTH = 8  # two steps are left after two halvings
WIDTHS = (1, 2, 2)  # channels of the three layers, in units of ``width``


class Cnn1d(Classifier):
    """Three convolutions with ReLU, halving after the first two, and an average over time.

    The length of the series does not change the number of parameters: 32,615 for 6 channels and
    7 classes with batch normalization.

    Parameters
    ----------
    spec : DataSpec
        Series (channels, time) of length >= 8.
    norm : str or Recipe
        Normalization after each convolution, or standardized weights in them; see
        :class:`~fedlabels.models.recipe.Recipe`. ``"group"`` and ``"layer"`` work on one series by
        itself and so hide most of how strong a movement was.
    width : int
        Channels of the first layer, >= 1; the other two have twice as many. A multiple of 4 for
        ``norm="group"``.
    kernel : int
        Time steps that a convolution sees, odd.

    Raises
    ------
    ConfigError
        If the samples are not series or too short, or a setting is not allowed.
    """

    def __init__(
        self, spec: DataSpec, *, norm: Norm | Recipe = "batch", width: int = 32, kernel: int = 5
    ) -> None:
        super().__init__()
        channels, _ = series_shape(spec, model="cnn1d", least=LEAST_LENGTH)
        if width < 1:
            raise ConfigError(f"width must be >= 1, got {width}")
        if kernel < 1 or kernel % 2 == 0:
            raise ConfigError(f"kernel must be odd and >= 1, got {kernel}")
        recipe, layers = Recipe.of(norm), list[nn.Module]()
        for place, multiple in enumerate(WIDTHS):
            channels_out = multiple * width
            layers.append(
                recipe.convolution_1d(channels, channels_out, kernel, after_relu=place > 0)
            )
            layers += [recipe.norm_of(channels_out), recipe.relu(), nn.MaxPool1d(2)]
            channels = channels_out
        self.body = nn.Sequential(*layers[:-1], GlobalAverage())
        self.head = nn.Linear(channels, spec.num_classes)
