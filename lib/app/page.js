// The page: its controls, and what it shows of what the other modules find.

import { openDetector } from "./detector.js";
import { draw, drawSquare } from "./draw.js";
import { openModel } from "./model.js";
import { OwnSigns } from "./own.js";
import { takePicture } from "./picture.js";
import { PracticePanel } from "./practice.js";
import { MISSING } from "./preprocess.js";
import { Problem } from "./problem.js";
import { cameras, close, everyFrame, live, openCamera, openFile } from "./sources.js";
import { HandWatch, SPAN, StreamWatch, SURE, Vote } from "./watch.js";

const SINGLE = 6; // seconds; a shorter video file is one sign, in a longer one signs are looked for
const SEPARATOR = " · "; // between the signs of the history, some of which are two words
const RATED = 30; // frames that the rate is measured on

const $ = (id) => document.getElementById(id);
const video = $("video");
let [model, opening, detector, running] = [null, null, null, null];
let own, practice;
let watcher, vote;
let times = []; // seconds at which the last frames were dealt with
const history = [];

// ---- opening ---------------------------------------------------------------------------------------------

async function open() {
  navigator.serviceWorker?.register("sw.js").catch(() => {}); // from a file, or where the browser forbids it
  navigator.serviceWorker?.ready.then(
    () => ($("offline").textContent = "Kept in this browser: the page also works without a network."),
  );
  const released = await (await fetch("models/released.json")).json();
  const address = new URLSearchParams(location.search).get("model") ?? released[0].address;
  const facts = released.find((one) => one.address === address);
  offerModels(released, address);
  try {
    model = await openModel(address);
  } catch (error) {
    showGloss("", "No model");
    throw error;
  }
  model.knownFrom = facts?.known_from ?? null;
  describe(facts);
  own = new OwnSigns(model, {
    isLive: () => Boolean(video.srcObject && running),
    startCamera,
    attempt,
    say: showGloss,
  });
  practice = new PracticePanel(model, facts?.skeletons, attempt);
  for (const id of ["camera", "file", "ask"]) $(id).disabled = false;
  showGloss("", "Ready");
  await listCameras();
}

/** The models that are in the folder, where there are several. */
function offerModels(released, address) {
  const options = released.map((one) => new Option(`${one.name}, ${one.glosses} signs`, one.address));
  $("model").replaceChildren(...options);
  $("model").value = address;
  $("others").hidden = released.length < 2;
  $("model").onchange = () => (location.search = `?model=${encodeURIComponent($("model").value)}`);
}

function describe(facts) {
  const { data = "", licence = "" } = model.description;
  const reads = model.size
    ? `It reads the square in the middle of the picture, ${model.frames} times in ${SPAN} seconds.`
    : "It reads where the joints of the hands are, which MediaPipe finds in each picture.";
  const scored = facts?.top1
    ? ` It names ${percent(facts.top1)} of ${facts.n} test clips rightly, and has the right sign among its first five for ` +
      `${percent(facts.top5)}; ${facts.n_missing} clips of the test split were not to be had.`
    : "";
  const lines = [
    `The model ${model.name} knows ${model.labels.length} signs. ${reads} ${data}${scored}`,
    "Those clips were cut to one sign each. In front of your camera it may do worse.",
  ];
  $("about").replaceChildren(...lines.map((line) => element("p", line)));
  $("sees").textContent = model.size
    ? "It sees the light, the background and the clothes as well: what differs from its training may mislead it."
    : "It sees hands only: neither the face nor the mouth nor where at the body a hand is.";
  for (const id of ["of-asl", "of-web"]) $(id).hidden = !model.name.startsWith("wlasl");
  $("seeing").textContent = model.size ? "Picture" : "Hands";
  $("terms").textContent = licence;
  $("count").textContent = `The model’s ${model.labels.length} signs`;
  $("labels-title").textContent = `The ${model.labels.length} signs that it knows`;
  $("labels").textContent = [...model.labels].sort().join(", ");
}

// ---- camera and files ------------------------------------------------------------------------------------

$("camera").onclick = () => startCamera();
$("cameras").onchange = () => startCamera();
$("stop").onclick = () => stop();
$("mirror").onchange = mirror;
$("file").onchange = () => {
  const [file] = $("file").files;
  $("file").value = ""; // so that the same file can be chosen again
  if (file) attempt(() => readFile(file));
};

function startCamera() {
  return attempt(async () => {
    const signal = await begin((ended) => openCamera(video, $("cameras").value, ended));
    await listCameras();
    showGloss("", "No sign");
    runCamera(signal);
  });
}

async function runCamera(signal) {
  await attempt(async () => {
    for await (const seconds of live(video, signal)) await watch(seconds, await see(seconds));
  });
  if (!signal.aborted) stop(); // it failed
}

/** Reads a video file: all of it as one sign, or the signs of a longer one. */
async function readFile(file) {
  const signal = await begin(() => openFile(video, file));
  const clip = [];
  const single = video.duration <= SINGLE;
  let damaged = null; // seconds from which on the file cannot be read
  for await (const seconds of everyFrame(video, signal, (from) => (damaged = from))) {
    const seen = await see(seconds);
    if (single || !model.size) clip.push(seen);
    if (single) showGloss("", `Reading, ${percent(seconds / video.duration)}`);
    else await watch(seconds, seen);
  }
  if (signal.aborted) return;
  end();
  if (single && !clip.length) {
    showGloss("", "Nothing was read");
    throw new Problem(`This browser cannot show the pictures of ${file.name}: try an MP4 or WebM file.`);
  }
  if (!model.size && !clip.some((frame) => frame[0] !== MISSING)) {
    showGloss("", "No hands");
    throw new Problem(
      `No hands are seen in ${file.name}: is the signer large enough in the picture, and is there light?`,
    );
  }
  if (single) await nameClip(clip);
  else showGloss("", "Read to the end");
  if (damaged !== null)
    throw new Problem(`${file.name} is damaged after ${damaged.toFixed(1)} s: what follows was left out.`);
}

/** Names all that was seen as one sign. */
async function nameClip(clip) {
  const read = await model.read(clip);
  showTook(read.took);
  own.offer(read.embedding);
  const { gloss, top } = name(read);
  showTop(top);
  showGloss(gloss);
  if (gloss) say(gloss, top);
}

/**
 * Ends what was running, opens MediaPipe if it is not open, and then a camera or a file. Returns the signal that ends
 * what begins now.
 */
async function begin(openSource) {
  stop();
  running = new AbortController();
  const { signal } = running;
  $("stop").disabled = false;
  [watcher, vote, times] = [new (model.size ? StreamWatch : HandWatch)(model), new Vote(), []];
  showTop([]);
  own.offer(null);
  if (!detector && !model.size) showGloss("", "Loading MediaPipe …");
  try {
    if (!model.size) {
      opening ??= openDetector();
      detector = await opening;
      signal.throwIfAborted();
      detector.reset();
    }
    await openSource(signal);
    signal.throwIfAborted();
  } catch (error) {
    if (!detector) opening = null;
    if (signal.aborted) throw signal.reason; // something else began
    stop();
    throw error;
  }
  $("hint").hidden = true;
  mirror();
  return signal;
}

/** The last frame of a file stays on the page. */
function end() {
  running?.abort();
  running = null;
  $("stop").disabled = true;
}

function stop() {
  if (running) showGloss("", "Stopped");
  end();
  watcher = null;
  own?.cancel();
  close(video);
  $("hint").hidden = false;
  $("skeleton").getContext("2d").clearRect(0, 0, $("skeleton").width, $("skeleton").height);
}

async function listCameras() {
  const found = await cameras();
  const chosen = video.srcObject?.getVideoTracks()[0]?.getSettings().deviceId ?? $("cameras").value;
  $("cameras").replaceChildren(
    ...found.map((one, number) => new Option(one.label || `Camera ${number + 1}`, one.deviceId)),
  );
  if (found.some((one) => one.deviceId === chosen)) $("cameras").value = chosen;
  $("choice").hidden = found.length < 2;
}

function mirror() {
  $("view").classList.toggle("mirrored", Boolean(video.srcObject) && $("mirror").checked);
}

// ---- frames and answers ----------------------------------------------------------------------------------

/** What the model reads of the frame that is shown: the hands in it, or its centred square. */
async function see(seconds) {
  const start = performance.now();
  const seen = model.size ? takePicture(video, model.size) : await detector.find(video);
  $("took-hands").textContent = milliseconds(performance.now() - start);
  if (model.size) drawSquare($("skeleton"), video.videoWidth, video.videoHeight);
  else draw($("skeleton"), seen, video.videoWidth, video.videoHeight);
  times = [...times, performance.now() / 1000].slice(-RATED);
  const rate = (times.length - 1) / (times.at(-1) - times[0]);
  $("rate").textContent = Number.isFinite(rate) ? rate.toFixed(rate < 10 ? 1 : 0) : "–";
  own.see(seconds, seen);
  return seen;
}

/** Takes what was seen of a frame in and, if it is time to, says what the last ones show. */
async function watch(seconds, seen) {
  const asked = watcher;
  const read = await asked?.push(seconds, seen);
  if (read === undefined || asked !== watcher) return; // the last answer stands, or something else began meanwhile
  if (read) showTook(read.took);
  const { gloss, top } = read ? name(read, SURE) : { gloss: "", top: [] };
  const held = vote.gloss;
  const isNew = vote.push(seconds, gloss);
  showTop(top);
  if (vote.gloss !== held) showGloss(vote.gloss, "No sign");
  if (isNew) say(vote.gloss, top);
}

/**
 * What a clip is called: one of the model's signs or of one's own, "" where it is neither, and the likeliest ones.
 * least: probability from which on a sign counts where nothing better is known of the model.
 */
function name(read, least = 0) {
  if (document.querySelector("[name=which]:checked").value === "own") return own.name(read.embedding);
  const [gloss, share] = read.top[0];
  const known = model.knownFrom === null ? share >= least : read.score >= model.knownFrom;
  return { gloss: known ? gloss : "", top: read.top };
}

function say(gloss, top) {
  history.push(gloss);
  $("history").textContent = history.join(SEPARATOR);
  $("history").scrollTop = $("history").scrollHeight;
  practice.see(gloss, top);
}

function showGloss(gloss, otherwise = "No sign that it knows") {
  const text = gloss || otherwise;
  if ($("gloss").textContent !== text) $("gloss").textContent = text; // screen readers say what changes
  $("gloss").classList.toggle("none", !gloss);
}

function showTop(top) {
  const rows = top.map(([gloss, share]) => {
    const bar = element("div", "", "bar");
    bar.style.width = `${100 * Math.max(0, share)}%`;
    const row = element("li");
    row.append(bar, element("span", gloss), element("span", percent(share)));
    return row;
  });
  $("top").replaceChildren(...rows);
}

function showTook({ prepare, model: inModel }) {
  $("took-prepare").textContent = milliseconds(prepare);
  $("took-model").textContent = milliseconds(inModel);
}

// ---- history ---------------------------------------------------------------------------------------------

$("copy").onclick = () =>
  attempt(async () => {
    await navigator.clipboard.writeText(history.join(SEPARATOR));
    $("copy").textContent = "Copied";
    setTimeout(() => ($("copy").textContent = "Copy"), 1500);
  });

$("clear").onclick = () => {
  history.length = 0;
  $("history").textContent = "";
};

// ---- small things ----------------------------------------------------------------------------------------

/** Does something; where it fails, the page says why. Returns what it returns. */
async function attempt(work) {
  $("problem").hidden = true;
  try {
    return await work();
  } catch (error) {
    if (error.name === "AbortError") return; // something else began
    if (!(error instanceof Problem)) console.error(error);
    $("problem").textContent =
      error instanceof Problem ? error.message : `Something went wrong: ${error.message ?? error}`;
    $("problem").hidden = false;
  }
}

function element(tag, textContent = "", className = "") {
  return Object.assign(document.createElement(tag), { textContent, className });
}

const percent = (share) => `${Math.round(100 * share)} %`;
const milliseconds = (value) => `${value.toFixed(value < 10 ? 1 : 0)} ms`;

attempt(open);
