"""Who runs workers on this machine: a Flower grid over backends of one, many or Ray's processes."""

from fedlabels import telemetry

telemetry.disable()  # before Flower or Ray are imported
