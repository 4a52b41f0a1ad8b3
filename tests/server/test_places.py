"""A limited number of places, of which a caller cannot take all."""

from __future__ import annotations

import grpc
import pytest

from featurewire_server.common.errors import ServingError
from featurewire_server.transport.grpc_limits import FairSlots


def takes(places: FairSlots, caller: object) -> bool:
    try:
        places.take(caller)
    except ServingError:
        return False
    return True


def take_all(places: FairSlots, caller: object) -> int:
    """Number of places that `caller` gets."""
    count = 0
    while takes(places, caller):
        count += 1
    return count


def test_a_single_caller_gets_at_most_half_of_the_places() -> None:
    places = FairSlots(100)
    assert take_all(places, "greedy") == 50
    with pytest.raises(ServingError, match="this host has 50 calls of this kind waiting") as caught:
        places.take("greedy")
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert takes(places, "another")


@pytest.mark.parametrize("greedy", [2, 3, 9])
def test_callers_get_equal_shares_and_a_new_one_finds_a_place(greedy: int) -> None:
    places, held = FairSlots(100), [0] * greedy
    for _ in range(200):  # each in turn gets an answer, and takes all places that it can
        for number in range(greedy):
            if held[number]:
                places.leave(number)
                held[number] -= 1
            held[number] += take_all(places, number)
    assert max(held) - min(held) <= 2
    assert max(held) <= 100 // (greedy + 1) + 2
    assert takes(places, "another")


def test_places_that_are_left_can_be_taken_again() -> None:
    places = FairSlots(10)
    assert take_all(places, "greedy") == 5
    for _ in range(5):
        places.leave("greedy")
    assert take_all(places, "greedy") == 5
