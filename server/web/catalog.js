// What is served: the models, their calibrations, and the two choices made from them.

import { calibration, models, ServerError, Unreachable } from "./api.js";

export class Catalog {
  #models = new Map();
  #calibrations = new Map();
  #modelChoice;
  #scoreChoice;
  /** The score chosen by the person, or null for each calibration's default. */
  #wanted = null;

  constructor({ modelChoice, scoreChoice }) {
    this.#modelChoice = modelChoice;
    this.#scoreChoice = scoreChoice;
    this.#withdrawScores();
    modelChoice.addEventListener("change", () => (this.#wanted = null));
    scoreChoice.addEventListener("change", () => (this.#wanted = scoreChoice.value));
  }

  /** Name of the chosen model, or null while none is known. */
  get model() {
    return this.#models.has(this.#modelChoice.value) ? this.#modelChoice.value : null;
  }

  /** Class names of the chosen model. */
  get classes() {
    return this.#models.get(this.model)?.classes ?? [];
  }

  /** Ask for the list of models and keep the choice, if it is still there. */
  async refresh() {
    const listed = await models();
    const chosen = this.#modelChoice.value;
    this.#models = new Map(listed.map((model) => [model.name, model]));
    this.#modelChoice.replaceChildren(...listed.map(modelOption));
    const best = listed.find((model) => model.state === "ready") ?? listed[0];
    this.#modelChoice.value = this.#models.has(chosen) ? chosen : (best?.name ?? "");
    this.#modelChoice.disabled = listed.length < 2;
    if (listed.length === 0) this.#modelChoice.append(option("none yet", ""));
  }

  /** The chosen model's calibration, asked for afresh; null when it cannot be had. */
  async load() {
    const model = this.model;
    this.#calibrations.delete(model);
    try {
      if (this.#models.get(model)?.state === "ready") {
        const known = await this.calibration(model);
        this.offerScores(known, this.scoreFor(known) ?? known.document.default_score);
        return known;
      }
    } catch (error) {
      if (!(error instanceof ServerError || error instanceof Unreachable)) throw error;
    }
    this.#withdrawScores();
    return null;
  }

  /** The calibration {id, document} of a model; asked for again when `id` is another one. */
  async calibration(model, id = null) {
    const known = this.#calibrations.get(model);
    if (known && (id === null || known.id === id)) return known;
    const fetched = await calibration(model);
    this.#calibrations.set(model, fetched);
    return fetched;
  }

  /** The score to ask for: the wanted one where it is calibrated, else null for the default. */
  scoreFor({ document: made }) {
    return Object.hasOwn(made.scores, this.#wanted) ? this.#wanted : null;
  }

  /** Offer a calibration's scores, one of them chosen. */
  offerScores({ document: made }, chosen) {
    const names = Object.keys(made.scores);
    const label = (name) => (name === made.default_score ? `${name} (default)` : name);
    this.#scoreChoice.replaceChildren(...names.map((name) => option(label(name), name)));
    this.#scoreChoice.value = chosen;
    this.#scoreChoice.disabled = names.length < 2;
  }

  /** Choose what an earlier answer was given by. */
  restore(model, scoreName) {
    if (this.#models.has(model)) this.#modelChoice.value = model;
    this.#wanted = scoreName;
  }

  #withdrawScores() {
    this.#scoreChoice.replaceChildren(option("none yet", ""));
    this.#scoreChoice.disabled = true;
  }
}

function modelOption({ name, state }) {
  return option(state === "ready" ? name : `${name} (${state})`, name);
}

function option(text, value) {
  const node = document.createElement("option");
  node.textContent = text;
  node.value = value;
  return node;
}
