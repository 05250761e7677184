"""How long to wait before the next connection."""

from __future__ import annotations

import pytest

from producers.kiwoom.client import Backoff


@pytest.mark.parametrize("failures", [1, 2, 3, 4, 10, 1000])
def test_a_wait_grows_is_jittered_and_has_a_cap(failures: int) -> None:
    for urgent, most in ((True, 5.0), (False, 60.0)):
        waits = [Backoff().wait(failures, urgent=urgent) for _ in range(200)]
        longest = min(most, 2.0 ** min(failures - 1, 10))
        assert all(longest / 2 <= wait <= longest for wait in waits)
        assert len(set(waits)) > 100, "everybody would come back at once"
