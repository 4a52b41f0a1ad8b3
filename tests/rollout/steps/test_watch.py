"""Comparison of the promoted version with the old one."""

from __future__ import annotations

from featurewire_rollout.steps.watch import Probes, WatchConfig, fault_of


def test_the_watch_compares_with_the_old_version() -> None:
    good, slow = Probes(latencies=[0.1] * 50), Probes(latencies=[0.3] * 50)
    failing = Probes(latencies=[0.1] * 45, errors=["gone"] * 5)
    config = WatchConfig()
    assert fault_of(good, good, config) == ""
    assert fault_of(failing, failing, config) == ""
    assert "10.0% of the probes failed" in fault_of(failing, good, config)
    assert "3.0 times" in fault_of(slow, good, config)
    assert "no probe" in fault_of(Probes(errors=["gone"]), good, config)
