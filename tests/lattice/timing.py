"""How long a call takes on a machine that does other things too."""

import time


def least(call):
    """The shortest of five runs of `call`, in seconds."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)
