"""Settings of all tests."""

from hypothesis import HealthCheck, settings

# A busy machine draws examples slowly, which says nothing of the code.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
