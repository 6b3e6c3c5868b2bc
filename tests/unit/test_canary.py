"""How requests are laid to the stages of a shift, and how the time until a change takes effect is read."""

import numpy as np
import pandas as pd
import pytest
from stackbook.traffic import canary
from stackbook.traffic.canary import Change
from stackbook.traffic.load_client import COLUMNS

BEGAN = 1_795_400_000.0


def frame(started, version, error=""):
    started = np.asarray(started, dtype=float)
    columns = {"started": started, "status": 200, "version": version, "seconds": 0.01, "request_id": "", "flags": ""}
    columns |= {"error": error, "served_by": "", "group": "all"}
    table = pd.DataFrame(columns)[list(COLUMNS)]
    table.attrs["began"] = BEGAN
    return table


def test_requests_while_a_rule_is_on_its_way_belong_to_no_stage():
    changes = [Change(BEGAN - 1, "90/10", 0.0), Change(BEGAN + 2, "50/50", 0.5), Change(BEGAN + 4, "0/100", 0.5)]
    staged = canary.by_stage(frame([0, 1.9, 2.1, 2.4, 2.6, 3.9, 4.2, 4.6, 9], "v1"), changes)
    assert list(staged["stage"]) == ["90/10", "90/10", "", "", "50/50", "50/50", "", "0/100", "0/100"]


def test_a_change_is_effective_with_the_last_request_that_the_old_version_serves():
    started = np.arange(0, 6, 0.1)
    version = np.where(started < 2.35, "v1", np.where(started < 4.15, "v3", "v1"))
    changes = [Change(BEGAN, "v1", 0.0), Change(BEGAN + 2, "v3", 0.6), Change(BEGAN + 4, "v1", 0.4)]
    found = canary.effects(frame(started, version), changes)
    assert list(found["to"]) == ["v3", "v1"]
    assert found["effective"].tolist() == pytest.approx([0.3, 0.1])
    assert found["reported"].tolist() == [0.6, 0.4]


def test_a_change_that_never_takes_effect_lasts_until_the_next():
    started = np.arange(0, 6, 0.1)
    changes = [Change(BEGAN, "v1", 0.0), Change(BEGAN + 2, "v3", 0.6)]
    assert canary.effects(frame(started, "v1"), changes)["effective"].iloc[0] > 3.5


def test_the_generators_own_failures_delay_no_change():
    started = np.arange(0, 6, 0.1)
    version = np.where(started < 2.35, "v1", "v3")
    error = np.where(started > 5, "client: out of ports", "")
    changes = [Change(BEGAN, "v1", 0.0), Change(BEGAN + 2, "v3", 0.6)]
    table = frame(started, np.where(error != "", "", version), error)
    assert canary.effects(table, changes)["effective"].iloc[0] == pytest.approx(0.3)


def test_a_change_that_no_request_saw_is_not_taken_for_one_of_immediate_effect():
    started = np.arange(3, 6, 0.1)
    changes = [Change(BEGAN, "v1", 0.0), Change(BEGAN + 1, "v3", 0.6), Change(BEGAN + 2.9, "v1", 0.4)]
    found = canary.effects(frame(started, "v1"), changes)["effective"]
    assert np.isnan(found.iloc[0])
    assert found.iloc[1] == 0.0
