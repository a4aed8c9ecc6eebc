"""Benchmarks: each measures our code and a peer alternately in the same run, and reports their ratio.

    make bench [PART=clips]

Every part writes reports/bench/<part>.csv and .md. Work that is timed runs in a process of its own (`bench.sides`), so
that TensorFlow, torch and the official MoViNet never share one.
"""
