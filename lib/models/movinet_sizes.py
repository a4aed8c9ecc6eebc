"""The six sizes of MoViNet: arXiv 2103.11511, tables 8 to 13, as in the official code (BLOCK_SPECS)."""

from typing import NamedTuple


class Block(NamedTuple):
    """Bottlenecks of one resolution.

    kernels: one two-digit number for each bottleneck, frames and pixels: "53" is 5 × 3 × 3. stride: of the first
    bottleneck, in height and width.
    """

    filters: int
    expanded: tuple[int, ...]
    kernels: str
    stride: int


class Size(NamedTuple):
    """A whole network; clip: frames, height and width of the published evaluation."""

    stem: int
    project: int
    clip: tuple[int, int, int]
    blocks: tuple[Block, ...]


# fmt: off
SIZES = {
    "a0": Size(stem=8, project=480, clip=(50, 172, 172), blocks=(
        Block(8, (24,), "15", 2),
        Block(32, (80, 80, 80), "33 33 33", 2),
        Block(56, (184, 112, 184), "53 33 33", 2),
        Block(56, (184, 184, 184, 184), "53 33 33 33", 1),
        Block(104, (384, 280, 280, 344), "53 15 15 15", 2),
    )),
    "a1": Size(stem=16, project=600, clip=(50, 172, 172), blocks=(
        Block(16, (40, 40), "15 33", 2),
        Block(40, (96, 120, 96, 96), "33 33 33 33", 2),
        Block(64, (216, 128, 216, 168, 216), "53 33 33 33 33", 2),
        Block(64, (216, 216, 216, 128, 128, 216), "53 33 33 33 15 33", 1),
        Block(136, (456, 360, 360, 360, 456, 456, 544), "53 15 15 15 15 33 13", 2),
    )),
    "a2": Size(stem=16, project=640, clip=(50, 224, 224), blocks=(
        Block(16, (40, 40, 64), "15 33 33", 2),
        Block(40, (96, 120, 96, 96, 120), "33 33 33 33 33", 2),
        Block(72, (240, 160, 240, 192, 240), "53 33 33 33 33", 2),
        Block(72, (240, 240, 240, 240, 144, 240), "53 33 33 33 15 33", 1),
        Block(144, (480, 384, 384, 480, 480, 480, 576), "53 15 15 15 15 33 13", 2),
    )),
    "a3": Size(stem=16, project=744, clip=(120, 256, 256), blocks=(
        Block(16, (40, 40, 64, 40), "15 33 33 33", 2),
        Block(48, (112, 144, 112, 112, 144, 144), "33 33 33 15 33 33", 2),
        Block(80, (240, 152, 240, 192, 240), "53 33 33 33 33", 2),
        Block(88, (264, 264, 264, 264, 160, 264, 264, 264), "53 33 33 33 15 33 33 33", 1),
        Block(168, (560, 448, 448, 560, 560, 560, 448, 448, 560, 672), "53 15 15 15 15 33 15 15 33 13", 2),
    )),
    "a4": Size(stem=24, project=856, clip=(80, 290, 290), blocks=(
        Block(24, (64, 64, 96, 64, 96, 64), "15 33 33 33 33 33", 2),
        Block(56, (168, 168, 136, 136, 168, 168, 168, 136, 136), "33 33 33 33 33 33 33 15 33", 2),
        Block(96, (320, 160, 320, 192, 320, 160, 320, 256, 320), "53 33 33 33 33 33 33 33 33", 2),
        Block(96, (320, 320, 320, 320, 192, 320, 320, 192, 320, 320), "53 33 33 33 15 33 33 33 33 33", 1),
        Block(192, (640, 512, 512, 640, 640, 640, 512, 512, 640, 768, 640, 640, 768),
              "53 15 15 15 15 33 15 15 15 15 15 33 33", 2),
    )),
    "a5": Size(stem=24, project=992, clip=(120, 320, 320), blocks=(
        Block(24, (64, 64, 96, 64, 96, 64), "15 15 33 33 33 33", 2),
        Block(64, (192, 152, 152, 152, 192, 192, 192, 152, 152, 192, 192), "53 33 33 33 33 33 33 33 33 33 33", 2),
        Block(112, (376, 224, 376, 376, 296, 376, 224, 376, 376, 296, 376, 376, 376),
              "53 33 33 33 33 33 33 33 33 33 33 33 33", 2),
        Block(120, (376, 376, 376, 376, 224, 376, 376, 224, 376, 376, 376), "53 33 33 33 15 33 33 33 33 33 33", 1),
        Block(224, (744, 744, 600, 600, 744, 744, 744, 896, 600, 600, 896, 744, 744, 896, 600, 600, 744, 744),
              "53 33 15 15 15 15 33 15 15 15 15 15 33 15 15 15 15 33", 2),
    )),
}
# fmt: on


def count_stages(size: str) -> int:
    """The number of stages that can be frozen: stem, bottlenecks, projection."""
    return 2 + sum(len(block.expanded) for block in SIZES[size].blocks)
