// The part of the page for signs of one's own: recording, the list, and the file.

import { MISSING } from "./preprocess.js";
import { Problem } from "./problem.js";
import { MOST, Signs } from "./signs.js";

const READY = 2; // seconds to get ready
const LENGTH = 2.5; // seconds that are recorded
const LEAST = 0.3; // similarity, where the model's file does not state from which on a clip shows a sign of one's own

const $ = (id) => document.getElementById(id);

export class OwnSigns {
  /** host: isLive, startCamera, attempt (says what fails) and say, of the page. */
  constructor(model, host) {
    Object.assign(this, { model, host, frames: null, offered: null });
    $("own-about").textContent = model.embeds
      ? `Show a sign once, or up to ${MOST} times, and it is recognised from then on, without training. Your examples stay in this browser.`
      : `The model ${model.name} gives no embeddings, which signs of your own need.`;
    $("own").hidden = !model.embeds;
    if (!model.embeds) return;
    this.signs = new Signs(model);
    this.list();
    $("record").onsubmit = async (event) => {
      event.preventDefault();
      event.submitter.disabled = true;
      await host.attempt(() => this.record());
      event.submitter.disabled = false;
    };
    $("take").onclick = () => host.attempt(() => this.add(this.offered));
    $("export").onclick = () => this.export();
    $("import").onchange = () => host.attempt(() => this.import());
    $("least").oninput = () => ($("least-said").textContent = Number($("least").value).toFixed(2));
    $("least").value = model.description.own_signs_from ?? LEAST;
    $("least").oninput();
  }

  /** Takes in what is seen in a frame, for an example that is being recorded. */
  see(seconds, landmarks) {
    this.frames?.push([seconds, landmarks]);
  }

  /** Offers the embedding of a video file as an example, null to offer nothing. */
  offer(embedding) {
    this.offered = this.model.embeds ? embedding : null;
    $("take").hidden = !this.offered;
  }

  /** Names a clip by its embedding: the sign, "" where none is like enough, and the signs that are most like it. */
  name(embedding) {
    const top = this.signs.rank(embedding);
    return { gloss: top[0][1] >= Number($("least").value) ? top[0][0] : "", top };
  }

  /** Counts down, records, and adds the example. */
  async record() {
    if (!$("name").value.trim()) throw new Problem("Give the sign a name first.");
    if (!this.host.isLive()) await this.host.startCamera();
    if (!this.host.isLive()) return;
    const turn = (this.turn = Symbol("recording"));
    for (let left = READY; left > 0; left--) {
      $("recording").textContent = `Get ready: ${left}`;
      await wait(1);
    }
    if (this.turn !== turn) return;
    $("recording").textContent = "Sign now";
    this.frames = [];
    await wait(LENGTH);
    const frames = (this.frames ?? []).map(([, frame]) => frame);
    const times = (this.frames ?? []).map(([seconds]) => seconds);
    this.frames = null;
    $("recording").textContent = "";
    if (this.turn !== turn) return;
    if (!frames.some((frame) => frame[0] !== MISSING))
      throw new Problem("No hands were seen: record the example again.");
    this.add((await this.model.read(frames, times)).embedding);
  }

  /** Ends a recording without an example. */
  cancel() {
    [this.turn, this.frames] = [null, null];
    $("recording").textContent = "";
  }

  add(embedding) {
    const name = $("name").value.trim();
    this.signs.add(name, embedding);
    this.list();
    $("recording").textContent = `“${name}” has ${counted(this.signs.vectors.get(name).length)}.`;
    document.querySelector("[name=which][value=own]").checked = true;
  }

  list() {
    const rows = [...this.signs.vectors].map(([gloss, examples]) => {
      const forget = Object.assign(document.createElement("button"), {
        type: "button",
        className: "small",
        textContent: "Forget",
      });
      forget.setAttribute("aria-label", `Forget ${gloss}`);
      forget.onclick = () => {
        this.signs.remove(gloss);
        this.list();
        $("name").focus();
      };
      const row = document.createElement("li");
      row.append(`${gloss}, ${counted(examples.length)}`, forget);
      return row;
    });
    $("signs").replaceChildren(...rows);
    $("export").disabled = !rows.length;
    const choice = document.querySelector("[name=which][value=own]");
    choice.disabled = !rows.length;
    if (!rows.length) document.querySelector("[name=which][value=model]").checked = true;
  }

  export() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([this.signs.text()], { type: "application/json" }));
    link.download = "signs.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  async import() {
    const [file] = $("import").files;
    $("import").value = "";
    if (!file) return;
    this.signs.import(await file.text(), file.name);
    this.list();
    $("recording").textContent = `${file.name} was read.`;
  }
}

const counted = (examples) => `${examples} example${examples === 1 ? "" : "s"}`;
const wait = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
