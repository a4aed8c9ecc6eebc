"""A program that uses an exported file and nothing of the study: numpy, PyAV, and ai-edge-litert or onnxruntime.

python export_client.py <file.tflite | file.onnx> <video> [xmin ymin xmax ymax]
Prints the label and its probability. The box is the signer's, in pixels.
"""

import json
import sys
import zipfile

import av
import numpy as np


def read_video(path):
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def crop(frames, box, margin):
    height, width = frames.shape[1:3]
    if not box:
        side = min(height, width)
        x, y = (width - side) // 2, (height - side) // 2
    else:
        side = max(box[2] - box[0], box[3] - box[1]) * (1 + 2 * margin)
        side = min(round(side), height, width)
        x = int(np.clip(round((box[0] + box[2] - side) / 2), 0, width - side))
        y = int(np.clip(round((box[1] + box[3] - side) / 2), 0, height - side))
    return frames[:, y : y + side, x : x + side]


def shrink(frames, size):
    """Mean of the pixels that fall into each pixel of the smaller picture."""
    edges = np.linspace(0, frames.shape[1], size + 1).astype(int)[:-1]
    counts = np.diff(np.append(edges, frames.shape[1]))
    sums = np.add.reduceat(np.add.reduceat(frames.astype(np.float32), edges, 1), edges, 2)
    return (sums / (counts[:, None, None] * counts[:, None]) / 255).astype(np.float32)


class Model:
    def __init__(self, path):
        if path.endswith(".tflite"):
            from ai_edge_litert.interpreter import Interpreter

            with zipfile.ZipFile(path) as file:
                self.labels = file.read("labels.txt").decode().splitlines()
                self.description = json.loads(file.read("description.json"))
            runner = Interpreter(path).get_signature_runner()
            self.shapes = {name: detail["shape"] for name, detail in runner.get_input_details().items()}
            self.run = lambda inputs: runner(**inputs)
        else:
            import onnxruntime

            session = onnxruntime.InferenceSession(path)
            properties = session.get_modelmeta().custom_metadata_map
            self.labels = properties["labels"].splitlines()
            self.description = json.loads(properties["description"])
            self.shapes = {one.name: [1, *one.shape[1:]] for one in session.get_inputs()}
            names = [one.name for one in session.get_outputs()]
            self.run = lambda inputs: dict(zip(names, session.run(None, inputs), strict=True))

    def logits(self, clip):
        """clip: (frames, size, size, 3)"""
        if "clip" in self.shapes:
            return self.run({"clip": clip[None]})["logits"][0]
        state = {name: np.zeros(shape, np.float32) for name, shape in self.shapes.items() if name != "image"}
        for frame in clip:
            after = self.run({"image": frame[None, None], **state})
            logits = after.pop("logits")
            state = {name.removeprefix("next_"): value for name, value in after.items()}
        return logits[0]


def main(path, video, *box):
    model = Model(path)
    asked = next(iter(model.description["input"].values()))
    frames = crop(read_video(video), [float(side) for side in box], asked["margin"])
    count = model.description["frames"]  # of a clip
    middles = ((np.arange(count) + 0.5) * len(frames) / count).astype(int)
    logits = model.logits(shrink(frames[middles], asked["shape"][2]))
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    print(model.labels[probabilities.argmax()], f"{probabilities.max():.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
