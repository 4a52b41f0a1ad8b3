"""A name that resolves to several replicas."""

from __future__ import annotations

from featurewire_rollout.fleet.fleet import addresses_of


def test_a_name_stands_for_all_its_addresses() -> None:
    def resolve(_host: str, _port: int) -> list[str]:
        return ["10.0.0.1", "10.0.0.2"]

    assert addresses_of("fleet.example:8500", resolve) == ["10.0.0.1:8500", "10.0.0.2:8500"]
    assert addresses_of("127.0.0.1:8500", resolve) == ["127.0.0.1:8500"]
    assert addresses_of("localhost:8500", resolve) == ["localhost:8500"]
