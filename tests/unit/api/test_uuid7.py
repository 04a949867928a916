import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_api import uuid7

MILLISECOND = 1_000_000
TIMES = st.integers(0, 2**48 * MILLISECOND - 1)
RANDOM = st.binary(min_size=8, max_size=8)


def test_it_makes_the_example_of_rfc_9562() -> None:
    # Appendix A.6: unix_ts_ms, rand_a (12 bits, here a fraction of it) and rand_b (62 bits).
    fraction = -(-0xCC3 * MILLISECOND // 4096)
    randomness = (0x18C4DC0C0C07398F).to_bytes(8, "big")
    raw = uuid7.build(0x017F22E279B0 * MILLISECOND + fraction, randomness)
    assert uuid7.text(raw) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
    assert uuid7.milliseconds(raw) == 0x017F22E279B0


@given(TIMES, RANDOM)
def test_it_is_a_uuid_of_version_7_that_tells_its_time(time: int, randomness: bytes) -> None:
    raw = uuid7.build(time, randomness)
    parsed = uuid.UUID(bytes=raw)
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert str(parsed) == uuid7.text(raw)
    assert uuid7.milliseconds(raw) == time // MILLISECOND


@given(TIMES, TIMES, RANDOM, RANDOM)
def test_ids_sort_by_time(early: int, late: int, left: bytes, right: bytes) -> None:
    early, late = sorted((early, late))
    if late - early > 244:
        first, second = uuid7.build(early, left), uuid7.build(late, right)
        assert first < second
        assert uuid7.text(first) < uuid7.text(second)


@pytest.mark.parametrize("bit", range(62))
def test_each_of_62_random_bits_makes_another_id(bit: int) -> None:
    nothing = uuid7.build(0, bytes(8))
    assert uuid7.build(0, (1 << bit).to_bytes(8, "big")) != nothing
