"""What holds for every unit test: no way out of the machine, and no race against a clock."""

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from pytest_socket import socket_allow_hosts

# A slow machine is no failure, and a failure found once is found again. For a long search:
# HYPOTHESIS_PROFILE=thorough make unit
_ALWAYS: Any = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("moorage", **_ALWAYS, derandomize=True, max_examples=20)
settings.register_profile("thorough", **_ALWAYS, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "moorage"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    socket_allow_hosts(["127.0.0.1", "::1", "localhost"], allow_unix_socket=True)
