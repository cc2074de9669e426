// Watches readiness: often while the server is not ready, seldom while it is.

import { readiness, Unreachable } from "./api.js";

const READY_MS = 15_000;
const WAITING_MS = 2_000;
const WORDS = { ready: "Ready", waiting: "Not ready", away: "Not reachable" };

export class Readiness {
  #status;
  #panel;
  #title;
  #reasons;
  #onChange;
  #timer = 0;
  #state = "checking";
  #shown = "";

  /** onChange() is called when the server becomes ready, and when what is not ready changes. */
  constructor({ status, panel, title, reasons, onChange }) {
    this.#status = status;
    this.#panel = panel;
    this.#title = title;
    this.#reasons = reasons;
    this.#onChange = onChange;
    document.addEventListener("visibilitychange", () => document.hidden || this.check());
  }

  get ready() {
    return this.#state === "ready";
  }

  /** Ask now, and go on asking. */
  async check() {
    clearTimeout(this.#timer);
    const { state, reasons } = await ask();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(
      () => document.hidden || this.check(),
      state === "ready" ? READY_MS : WAITING_MS,
    );
    const shown = JSON.stringify([state, reasons]);
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#state = state;
    this.#show(reasons);
    if (state !== "away") this.#onChange();
  }

  #show(reasons) {
    this.#status.dataset.state = this.#state;
    this.#status.textContent = WORDS[this.#state];
    this.#panel.hidden = this.#state === "ready";
    this.#title.textContent =
      this.#state === "away" ? "The server cannot be reached" : "The server is not ready";
    this.#reasons.replaceChildren(
      ...Object.entries(reasons).flatMap(([name, why]) => reason(name, why)),
    );
  }
}

async function ask() {
  try {
    const { ready, reasons } = await readiness();
    return { state: ready ? "ready" : "waiting", reasons };
  } catch (error) {
    if (!(error instanceof Unreachable)) throw error;
    return { state: "away", reasons: { [location.host]: error.message } };
  }
}

function reason(name, why) {
  const term = document.createElement("dt");
  term.textContent = name;
  const text = document.createElement("dd");
  text.textContent = typeof why === "string" ? why : JSON.stringify(why);
  return [term, text];
}
