"""Pictures of the page with a drawn signer of the sample.

PYTHONPATH=tests:data python tests/shoot_app.py <folder> [model.onnx]

The sign is made up and the hands are where they were drawn, also those of practice, so neither the answer nor the times
mean anything: the times are left out.
"""

import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import sync_playwright

from browsing import SOFTWARE_GL, Visit, expect, launch, put_stand_in
from lib.app.__main__ import server
from lib.app.build import assemble
from lib.data.hands import order_hands
from lib.data.poses import PoseStore
from lib.export.files import read_metadata
from lib.paths import Paths
from lib.predict.model import best_released
from sample import SIZE, draw, encode, joints_of, plan_clips

GLOSS, SHARE = "both-close", 0.6  # what is signed, and of how much of it the last picture is
KINDS = {"desk": (1280, 960, "light"), "phone": (390, 1130, "dark")}


def main(folder: Path, model: Path | None = None) -> None:
    """Write desk.png, phone.png and practice.png."""
    model = model or best_released().with_suffix(".onnx")
    clip = next(clip for clip in plan_clips(0, 8) if clip.gloss == GLOSS)
    body, hands = (joints[: clip.before + round(SHARE * clip.signed)] for joints in joints_of(clip, 0))
    landmarks = np.concatenate([hands / SIZE, np.zeros((*hands.shape[:-1], 1))], -1)
    with tempfile.TemporaryDirectory() as made, sync_playwright() as tool:
        video = Path(made) / "drawn.mp4"
        encode(video, (draw(*joints, clip.signer) for joints in zip(body, hands, strict=True)), clip.fps)
        write_store(Path(made), model, landmarks)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STUDY_HOME", made)
            assemble(Path(made) / "app", model)
        with server(Path(made) / "app", 0) as serving:
            threading.Thread(target=serving.serve_forever, daemon=True).start()
            browser = launch(tool, *SOFTWARE_GL)
            for name, (width, height, scheme) in KINDS.items():
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                put_stand_in(page, {"0": landmarks})
                visit = Visit(page, f"http://localhost:{serving.server_port}/")
                visit["ask"].click()
                expect(visit["show"]).to_be_visible()
                visit.open_video(video)
                expect(visit["top"].locator("li")).to_have_count(5)
                page.wait_for_timeout(500)
                page.evaluate("document.querySelectorAll('.timing dd').forEach((time) => { time.textContent = '–'; })")
                page.evaluate("scrollTo(0, 0)")
                page.screenshot(path=folder / f"{name}.png")
            visit["show"].click()
            visit["position"].fill(str(SHARE))
            page.locator("section", has=visit["player"]).screenshot(path=folder / "practice.png")
            browser.close()
            serving.shutdown()


def write_store(home: Path, model: Path, landmarks: np.ndarray) -> None:
    """Write a pose store in which every sign of the model has this clip: none of WLASL's is to be seen."""
    description, labels = read_metadata(model)
    paths = Paths(description["name"].split("/")[0], home)
    rows = [(gloss, gloss, "train", "present", 25.0) for gloss in labels]
    PoseStore(np.array(labels), [order_hands(landmarks.astype(np.float32))] * len(labels)).save(paths.poses)
    pd.DataFrame(rows, columns=["video_id", "gloss", "split", "status", "fps"]).to_parquet(paths.index)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
