// The last few answers, newest first; an entry is shown again by choosing it.

import { paintThumbnail } from "./answer.js";
import { percent } from "./format.js";

const LENGTH = 8;

export class History {
  #list;
  #hint;
  #entries = [];
  #current = null;
  #onChoose;

  constructor(list, hint, onChoose) {
    this.#list = list;
    this.#hint = hint;
    this.#onChoose = onChoose;
  }

  /** Add an answer; an older answer of the same model for the same image gives way to it. */
  add(entry) {
    const place = this.#entries.findIndex(
      (old) => old.image.key === entry.image.key && old.model === entry.model,
    );
    if (place >= 0) this.#entries[place] = entry;
    else this.#entries = [entry, ...this.#entries].slice(0, LENGTH);
    this.select(entry);
  }

  /** Mark the entry that the page shows, or null. */
  select(entry) {
    this.#current = entry;
    this.#hint.hidden = this.#entries.length > 0;
    const focused = this.#list.contains(document.activeElement);
    this.#list.replaceChildren(...this.#entries.map((item) => this.#item(item)));
    if (focused) this.#list.querySelector("[aria-current=true]")?.focus();
  }

  #item(entry) {
    const { prediction, image } = entry;
    const word = prediction.ood ? "OUT" : "IN";
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.verdict = prediction.ood ? "out" : "in";
    button.setAttribute("aria-current", entry === this.#current);
    button.setAttribute(
      "aria-label",
      `${image.name}: ${prediction.label}, ${word}. Show this answer again`,
    );
    button.title = `${image.name}: ${prediction.label} (${percent(prediction.probability)}), ${word}`;
    const thumb = document.createElement("canvas");
    paintThumbnail(thumb, image);
    const label = document.createElement("span");
    label.className = "past-label";
    label.textContent = prediction.label;
    const verdict = document.createElement("span");
    verdict.className = "past-verdict";
    verdict.textContent = word;
    button.append(thumb, label, verdict);
    button.addEventListener("click", () => this.#onChoose(entry));
    item.append(button);
    return item;
  }
}
