"""Figures about exported files."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

MARKS = {"tflite": "o", "tflite-stream": "^", "onnx": "s", "onnx-stream": "D"}


def size_and_speed(table: pd.DataFrame, title: str = "") -> Figure:
    """Each file by its size and its milliseconds on one thread; a form of mark for each format."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for kind, rows in table.groupby("format", sort=False):
        megabytes, speed = rows["bytes"] / 1e6, rows["latency_ms_1_thread"]
        axes.plot(megabytes, speed, MARKS[kind], label=kind)
        for x, y, precision in zip(megabytes, speed, rows["precision"], strict=True):
            axes.annotate(precision, (x, y), textcoords="offset points", xytext=(6, 3), fontsize=8)
    axes.set(xlabel="MB", ylabel="ms on one thread, of a clip or (stream) a frame", title=title)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0, right=1.2 * table["bytes"].max() / 1e6)
    axes.legend()
    plt.close(figure)
    return figure


def probabilities_by_frame(probabilities: np.ndarray, labels: list[str], label: str, title: str = "") -> Figure:
    """The probabilities (frames, labels) after each frame of a clip: of its own label, and of the three likeliest."""
    likeliest = np.argsort(-probabilities[-1])[:3]
    shown = dict.fromkeys([labels.index(label), *(int(number) for number in likeliest)])
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    for number in shown:
        name = f"{labels[number]} (right)" if labels[number] == label else labels[number]
        axes.plot(np.arange(1, len(probabilities) + 1), probabilities[:, number], marker=".", label=name)
    axes.set(xlabel="frames so far", ylabel="probability", ylim=(0, 1), title=title)
    axes.legend()
    plt.close(figure)
    return figure
