// The page: takes an image from the pad or a file, sends it, shows the answer.

import { predict, ServerError, Unreachable } from "./api.js";
import {
  clearAnswer,
  clearCalibration,
  showAnswer,
  showCalibration,
  watchWidth,
} from "./answer.js";
import { Catalog } from "./catalog.js";
import { History } from "./history.js";
import { explain, hideMessage, passing, showMessage } from "./message.js";
import { Pad } from "./pad.js";
import { Readiness } from "./readiness.js";
import { acceptFiles, thumbnail } from "./sources.js";

const TOP_K = 5;
const PAUSE_AFTER_STROKE_MS = 500;
const MOST_FILES = 8;
const WELCOME =
  "Draw something or send a picture. The answer says what it is, and whether the model knows " +
  "images like it.";

const byId = (id) => document.getElementById(id);

const state = {
  /** The image that the page is about: {key, source, name, blob, thumbnail}, or null. */
  image: null,
  /** True while that image waits for a server that can answer. */
  waiting: false,
  /** Ends the request under way, or null. */
  abort: null,
  /** Number of the drawing; clearing the pad begins a new one. */
  drawing: 1,
  files: 0,
  strokeTimer: 0,
};

const pad = new Pad(byId("pad"), {
  onStart: () => clearTimeout(state.strokeTimer),
  onChange: padChanged,
});
const catalog = new Catalog({ modelChoice: byId("model"), scoreChoice: byId("score-name") });
const past = new History(byId("history"), byId("history-empty"), showAgain);
const readiness = new Readiness({
  status: byId("status"),
  panel: byId("not-ready"),
  title: byId("not-ready-title"),
  reasons: byId("not-ready-reasons"),
  onChange: serverChanged,
});

/** Send an image and show the answer, or what is wrong. A later call ends an earlier one. */
async function submit(image) {
  clearTimeout(state.strokeTimer);
  cancel();
  state.image = image;
  state.waiting = catalog.model === null;
  if (state.waiting) {
    const text = "The server lists no model yet. The image is sent when there is one.";
    showMessage({ title: "No model to ask", text, context: image.name });
    return;
  }
  const abort = new AbortController();
  state.abort = abort;
  document.body.dataset.busy = true;
  try {
    image.thumbnail ??= await thumbnail(image.blob);
    const entry = await ask(catalog.model, image, abort.signal);
    if (state.abort === abort) answered(entry);
  } catch (error) {
    if (state.abort === abort) failed(error, image);
  } finally {
    if (state.abort === abort) cancel();
  }
}

async function ask(model, image, signal) {
  const topK = Math.min(TOP_K, catalog.classes.length || 1);
  const scoreName = catalog.scoreFor(await catalog.calibration(model));
  const start = performance.now();
  const answer = await predict(model, image.blob, { topK, scoreName, signal });
  const latencyMs = performance.now() - start;
  return {
    image,
    model: answer.model,
    version: answer.version,
    requestId: answer.request_id,
    prediction: answer.predictions[0],
    calibration: await catalog.calibration(model, answer.calibration),
    latencyMs,
    topK,
  };
}

function cancel() {
  state.abort?.abort();
  state.abort = null;
  delete document.body.dataset.busy;
}

function answered(entry) {
  hideMessage();
  past.add(entry);
  show(entry);
}

function show(entry) {
  catalog.offerScores(entry.calibration, entry.prediction.score_name);
  showAnswer(entry);
}

function showAgain(entry) {
  cancel();
  hideMessage();
  state.image = entry.image;
  state.waiting = false;
  catalog.restore(entry.model, entry.prediction.score_name);
  past.select(entry);
  show(entry);
}

function failed(error, image) {
  state.waiting = passing(error);
  past.select(null);
  clearAnswer(image, "No answer", `There is no answer for ${image.name}.`, catalog.classes);
  showMessage(explain(error, image));
  if (state.waiting) readiness.check();
  if (!(error instanceof ServerError || error instanceof Unreachable)) throw error;
}

/** Readiness changed, or what is not ready did: look again, and send what has been waiting. */
async function serverChanged() {
  try {
    await catalog.refresh();
  } catch (error) {
    if (!(error instanceof ServerError || error instanceof Unreachable)) throw error;
    // Readiness has said already why, unless it says that all is well.
    if (readiness.ready) {
      showMessage({ title: "The list of models cannot be read", text: error.message });
    }
    return;
  }
  if ((await modelChanged()) && state.waiting) await submit(state.image);
}

/** Show the chosen model's calibration; false when it has none. */
async function modelChanged() {
  const calibration = await catalog.load();
  if (!state.image) clearAnswer(null, "No image yet", WELCOME, catalog.classes);
  if (calibration === null) clearCalibration();
  else if (!state.image) {
    showCalibration(calibration, calibration.document.default_score);
  }
  return calibration !== null;
}

async function modelChosen() {
  if ((await modelChanged()) && state.image) await submit(state.image);
}

async function scoreChosen() {
  if (state.image) await submit(state.image);
  else showCalibration(await catalog.calibration(catalog.model), byId("score-name").value);
}

async function sendFiles(files) {
  const images = files.slice(0, MOST_FILES).map((file) => {
    state.files += 1;
    return { key: `file-${state.files}`, source: "file", name: file.name || "image", blob: file };
  });
  for (const image of images) {
    await submit(image);
    // The person has gone on to something else.
    if (state.image !== image) return;
  }
  if (files.length > MOST_FILES) {
    const text = `Only the first ${MOST_FILES} of ${files.length} files were sent.`;
    showMessage({ title: "Too many files at once", text });
  }
}

function padChanged() {
  clearTimeout(state.strokeTimer);
  for (const id of ["pad-undo", "pad-clear", "pad-send"]) byId(id).disabled = pad.empty;
  byId("pad-hint").hidden = !pad.empty;
  byId("pad-hint").parentElement.dataset.swapped = pad.swapped;
  byId("pad-swap").setAttribute("aria-pressed", pad.swapped);
  const strokes = `${pad.strokeCount} ${pad.strokeCount === 1 ? "stroke" : "strokes"}`;
  byId("pad").setAttribute(
    "aria-label",
    `Drawing area, ${pad.empty ? "empty" : strokes}. Draw with mouse, finger or pen.`,
  );
  if (!pad.empty) state.strokeTimer = setTimeout(sendDrawing, PAUSE_AFTER_STROKE_MS);
}

async function sendDrawing() {
  clearTimeout(state.strokeTimer);
  if (pad.empty) return;
  const key = `drawing-${state.drawing}`;
  await submit({ key, source: "pad", name: `${key}.png`, blob: await pad.toPng() });
}

function clearPad() {
  pad.clear();
  state.drawing += 1;
}

function undoByKey(event) {
  const asked = (event.ctrlKey || event.metaKey) && !event.shiftKey && event.key === "z";
  if (!asked || pad.empty || event.target.closest("input, select, textarea")) return;
  event.preventDefault();
  pad.undo();
}

async function copyCall() {
  const button = byId("curl-copy");
  try {
    await navigator.clipboard.writeText(byId("curl").textContent);
    button.textContent = "Copied";
  } catch {
    // Without https or permission the browser refuses; the text is selected instead.
    getSelection().selectAllChildren(byId("curl"));
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

function saveImage() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(state.image.blob);
  link.download = state.image.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function listen() {
  const clicks = {
    "pad-undo": () => pad.undo(),
    "pad-clear": clearPad,
    "pad-swap": () => pad.swap(),
    "pad-send": sendDrawing,
    "error-dismiss": hideMessage,
    "error-retry": () => submit(state.image),
    "curl-copy": copyCall,
    "save-image": saveImage,
  };
  for (const [id, action] of Object.entries(clicks)) byId(id).addEventListener("click", action);
  byId("model").addEventListener("change", modelChosen);
  byId("score-name").addEventListener("change", scoreChosen);
  addEventListener("keydown", undoByKey);
  acceptFiles({
    button: byId("drop-zone"),
    input: byId("file-input"),
    onFiles: sendFiles,
    onNothing: (text) => showMessage({ title: "Nothing to send", text }),
  });
}

listen();
watchWidth();
clearAnswer(null, "No image yet", WELCOME, []);
clearCalibration();
readiness.check();
