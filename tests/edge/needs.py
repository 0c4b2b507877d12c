"""What a machine may lack for these tests."""

import os
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skip the test, or fail it where everything is to be there (TANDEM_NO_SKIPS: `make test-trixie`, `make test-asterisk`)."""
    if os.environ.get("TANDEM_NO_SKIPS"):
        pytest.fail(reason)
    pytest.skip(reason)
