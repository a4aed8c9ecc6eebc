"""Sides for the tests of lib.bench.sides: light, as each process imports this file anew."""

import time


def sleepy(seconds):
    """A side that waits, and knows an answer."""
    return {"sleep": lambda: time.sleep(seconds), "answer": lambda: 42}


def hungry(mebibytes):
    """A side that holds so much memory for a moment."""
    from lib.bench.preprocessing import peak_memory

    return {"hold": lambda: len(bytearray(b"x") * (mebibytes << 20)), "memory": peak_memory}
