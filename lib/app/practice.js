// Practice: a sign is asked for and, if wanted, shown as a skeleton; the page says whether it saw it.

import { Player, Skeletons } from "./skeletons.js";

/** Draws signs to ask for, none twice before all were asked, and judges what is signed. */
export class Practice {
  constructor(labels, random = Math.random) {
    Object.assign(this, { labels, random, left: [], asked: "", judged: false, right: 0, tried: 0 });
  }

  /** The next sign to ask for. */
  next() {
    if (!this.left.length) this.left = [...this.labels];
    const [asked] = this.left.splice(Math.floor(this.random() * this.left.length), 1);
    Object.assign(this, { asked, judged: false });
    return asked;
  }

  /** Judges a sign that was seen, with the likeliest ones of that moment: a sentence, and whether it was right. */
  judge(gloss, top) {
    const right = gloss === this.asked;
    if (!this.judged) {
      this.tried += 1; // the first attempt counts
      this.right += Number(right);
    }
    this.judged = true;
    if (right) return { right, text: `Yes, that is “${gloss}”.` };
    const place = top.findIndex(([other]) => other === this.asked);
    const near = place > 0 ? ` “${this.asked}” was its guess number ${place + 1}.` : "";
    return { right, text: `I saw “${gloss}”.${near} Try again.` };
  }
}

const $ = (id) => document.getElementById(id);
const PRAISE = 1800; // milliseconds for which the page says that a sign was right

/** The part of the page for practice. */
export class PracticePanel {
  /** skeletons: what released.json says of the model's; attempt: of the page, says what fails. */
  constructor(model, skeletons, attempt) {
    Object.assign(this, { model, skeletons: skeletons && new Skeletons(skeletons, model.labels) });
    this.player = new Player();
    $("ask").onclick = () => this.ask();
    $("leave").onclick = () => this.leave();
    $("show").onclick = () => ($("player").hidden ? attempt(() => this.show()) : this.hide());
    const [study] = model.name.split("/");
    $("no-skeletons").textContent =
      `To see how a sign is made, build this page where the landmarks of ${study} are: ` +
      `make study STUDY=${study} DATA=<the folder of its data> puts them there in its first steps; then run make app again.`;
  }

  ask() {
    clearTimeout(this.turn);
    this.practice ??= new Practice(this.model.labels);
    $("asked").textContent = this.practice.next();
    $("judged").textContent = "";
    $("ask").textContent = "Another sign";
    $("leave").disabled = false;
    this.hide();
    $("show").hidden = !this.skeletons;
    $("no-skeletons").hidden = Boolean(this.skeletons) || this.model.size > 0; // a model of pictures has none
  }

  /** Shows how the sign that is asked for is made. */
  async show() {
    const label = this.practice.asked;
    const skeleton = await this.skeletons.of(label);
    if (label !== this.practice?.asked) return; // another one was asked for meanwhile
    $("show").textContent = skeleton ? "Hide the sign" : `There is no clip of “${label}” to show`;
    if (!skeleton) return;
    $("show").setAttribute("aria-expanded", "true");
    this.player.open(skeleton, label);
  }

  hide() {
    this.player.close();
    $("show").setAttribute("aria-expanded", "false");
    $("show").textContent = "Show me the sign";
  }

  leave() {
    clearTimeout(this.turn);
    this.practice = null;
    for (const id of ["asked", "judged", "points"]) $(id).textContent = "";
    $("ask").textContent = "Start";
    $("leave").disabled = true;
    this.hide();
    for (const id of ["show", "no-skeletons"]) $(id).hidden = true;
  }

  /** Takes in a sign that was seen, with the likeliest ones of that moment. */
  see(gloss, top) {
    if (!this.practice || !$("asked").textContent) return;
    const { right, text } = this.practice.judge(gloss, top);
    $("judged").textContent = text;
    $("points").textContent = `${this.practice.right} of ${this.practice.tried} right at the first attempt`;
    if (!right) return;
    $("asked").textContent = "";
    this.turn = setTimeout(() => this.ask(), PRAISE);
  }
}
