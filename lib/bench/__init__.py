"""The benchmarks: each measures our code and a peer in the same run, in turn, and states their ratio.

    python -m lib.bench [clips | waiting | movinet | s3d | x3d | spobet | preprocessing | costs | export …]

Every part writes reports/bench/<part>.csv and .md. Importing this loads no framework: work that is timed runs in a
process of its own (`lib.bench.sides`), so that TensorFlow, torch and the official MoViNet never meet.
"""
