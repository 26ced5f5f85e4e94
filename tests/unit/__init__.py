# SPDX-License-Identifier: Apache-2.0
"""Unit tests. How long an example of hypothesis takes says more about a busy machine than about the code."""

from hypothesis import HealthCheck, settings

settings.register_profile('unhurried', deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile('unhurried')
