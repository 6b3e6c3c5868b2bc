"""The end of `make test`: a lab that it built itself is taken away, and the host is as it was."""

from __future__ import annotations

import os

import pytest
from labtools import stackbook
from stackbook import paths
from stackbook.parameters import Profile
from stackbook.providers.embedded import Embedded

pytestmark = pytest.mark.live


def test_reset_leaves_the_host_as_it_was() -> None:
    if os.environ.get("STACKBOOK_LAB_WAS_THERE") != "0":
        pytest.skip("the lab was there before, and stays")
    profile = Profile.load()
    assert Embedded(profile).containers()
    done = stackbook("reset")
    assert done.status == 0, done.output
    assert "as it was before" in done.output
    assert Embedded(profile).containers() == {}
    assert not (paths.state(profile.lab) / "instance").exists()
