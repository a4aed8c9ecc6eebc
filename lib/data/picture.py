"""From a decoded frame to the picture that a player shows: turned and mirrored, with colours in the usual range.

The display matrix of a file maps a stored pixel (x, y) to (a·x + c·y, b·x + d·y) of the picture. What counts is the
quarter turn nearest to it, with or without a mirror: eight orientations.
"""

from fractions import Fraction
from functools import cache

import av
import numpy as np

HDR = {16: "PQ", 18: "HLG"}  # FFmpeg's numbers of the transfer functions of SMPTE ST 2084 and ARIB STD-B67
WHITE = 203  # cd/m² of diffuse white in HDR video (ITU-R BT.2408)
PEAK = 1000  # cd/m² of the display that HLG is mastered for (ITU-R BT.2100)
KNEE = 0.75  # share of white up to which light is kept; what is brighter is compressed into the rest
LUMA = np.array([0.2627, 0.678, 0.0593], np.float32)  # of linear RGB with BT.2020's primaries
# Linear RGB with BT.2020's primaries -> with BT.709's (ITU-R BT.2087).
TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)


def display_matrix(frame: av.VideoFrame) -> list[int]:
    """The display matrix (a b u, c d v, x y w) of a frame, in FFmpeg's fixed point, or an empty list."""
    try:
        return np.frombuffer(frame.side_data.get("DISPLAYMATRIX", b""), np.int32).tolist()
    except ValueError as error:  # "31 is not a valid Type": PyAV knows no side data of EXIF and of spatial video
        kind, graph = str(error).partition(" ")[0], av.filter.Graph()
        source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))
        graph.link_nodes(source, graph.add("sidedata", f"mode=delete:type={kind}"), graph.add("buffersink")).configure()
        graph.vpush(frame)
        return display_matrix(graph.vpull())


def orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Whether the image of a frame is transposed, then mirrored left to right, then upside down, to be upright."""
    a, b, _, c, d, *_ = display_matrix(frame) or [1, 0, 0, 0, 1]
    transposed = abs(b) + abs(c) > abs(a) + abs(d)
    return transposed, (c if transposed else a) < 0, (b if transposed else d) < 0


def upright(image: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Turn and mirror the image of a frame, (height, width) or (height, width, 3), as a player does."""
    transposed, mirror_x, mirror_y = orientation(frame)
    image = image.swapaxes(0, 1) if transposed else image
    return image[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1]


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """Width and height of the picture, in pixels."""
    return (frame.height, frame.width) if orientation(frame)[0] else (frame.width, frame.height)


def as_shown(image: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Make the RGB image of a frame, uint8 (height, width, 3), upright, and bring HDR to the usual range."""
    image = upright(image, frame)
    return _usual_range(image, frame.color_trc) if frame.color_trc in HDR else image


def oddities(frame: av.VideoFrame) -> list[str]:
    """Say what `as_shown` changes beyond a mere rotation."""
    mirrored = ["mirrored by its display matrix"] if sum(orientation(frame)) % 2 else []
    return mirrored + [f"HDR ({name}) brought to the usual range" for n, name in HDR.items() if n == frame.color_trc]


def _usual_range(image: np.ndarray, transfer: int) -> np.ndarray:
    """Map HDR to BT.709 as on a display of BT.1886 (gamma 2.4): diffuse white becomes white, highlights are rolled off.

    The curve scales the three channels of a pixel alike, so hues stay: x up to KNEE, beyond it an exponential to 1.
    """
    light = _light(transfer)[image]
    if HDR[transfer] == "HLG":  # its system gamma is 1.2 at PEAK
        light = light * (PEAK / WHITE * np.maximum(light @ LUMA, 1e-6) ** 0.2)[..., None]
    light = np.maximum(light @ TO_BT709.T, 0)
    brightest = np.maximum(light.max(-1, keepdims=True), 1e-6)
    rolled = np.where(brightest < KNEE, brightest, 1 - (1 - KNEE) * np.exp((KNEE - brightest) / (1 - KNEE)))
    return np.round(255 * (light * (rolled / brightest)) ** (1 / 2.4)).astype(np.uint8)


@cache
def _light(transfer: int) -> np.ndarray:
    """Linear light of the 256 levels, float32: of PQ over diffuse white, of HLG that of the scene in [0, 1]."""
    level = np.linspace(0, 1, 256)
    if HDR[transfer] == "PQ":
        root = level ** (32 / 2523)
        light = 10_000 / WHITE * (np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)) ** (8192 / 1305)
    else:
        light = np.where(level <= 0.5, level**2 / 3, (np.exp((level - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    return light.astype(np.float32)
