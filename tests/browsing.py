"""The page in Chromium, driven by playwright: for its tests and its pictures."""

import json
import shutil

from playwright.sync_api import expect

SOFTWARE_GL = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
FAKE_CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
# In the place of detector.js: the landmarks of the clip that window.clip names, from its first frame on, and again.
STAND_IN = """
const clips = CLIPS;
let number = 0;
const find = async () => {
  const clip = clips[window.clip ?? 0];
  return Float32Array.from(clip[number++ % clip.length]);
};
export const openDetector = async () => ({ find, reset: () => (number = 0) });
"""
QUIET = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
expect.set_options(timeout=60_000)  # milliseconds; machines may be busy


def launch(tool, *arguments):
    """Start Chromium with more arguments."""
    return tool.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *arguments])


def put_stand_in(page, clips):
    """Let a page find the hands of these clips, landmarks by name, in whatever it is shown."""
    listed = {name: clip.reshape(len(clip), -1).tolist() for name, clip in clips.items()}
    script = STAND_IN.replace("CLIPS", json.dumps(listed))
    page.route("**/detector.js", lambda route: route.fulfill(body=script, content_type="text/javascript"))


class Visit:
    """An open page, and what went wrong and where it asked for something since."""

    def __init__(self, page, address):
        self.page, self.said, self.asked = page, [], []
        page.on("console", lambda message: self.said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(address)
        expect(self["gloss"]).not_to_have_text("Loading the model …")

    def __getitem__(self, name):
        return self.page.locator(f"#{name}")

    def show(self, clip):
        """What the detector's stand-in sees from now on."""
        self.page.evaluate("(clip) => { window.clip = clip; }", clip)

    def open_video(self, path):
        self["file"].set_input_files(path)
