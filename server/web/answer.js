// Shows one answer: every number on the page comes from the entry given here.

import { contentType, predictUrl } from "./api.js";
import { distributionChart } from "./chart.js";
import {
  bytes,
  count,
  moment,
  number,
  percent,
  promise,
  pValue,
  pValueSentence,
  shellQuote,
} from "./format.js";

const DASH = "–";
const byId = (id) => document.getElementById(id);

const CLASSES_SHOWN = 24;

const VERDICTS = {
  in: {
    title: ["IN", " distribution"],
    note: (label) => `Looks like “${label}”, and the model knows images like this one.`,
    caution: "Shares among the classes that the model knows.",
  },
  out: {
    title: ["OUT", " of distribution"],
    note: (label) =>
      `Unlike the images the model was calibrated on. Do not rely on its class, “${label}”.`,
    caution: "Only a guess: the nearest known class.",
  },
};

/** What the chart shows, kept so that it can be drawn again at another width. */
let chartInput = null;

/** An entry is {image, prediction, model, version, calibration: {id, document}, requestId, latencyMs, topK}. */
export function showAnswer(entry) {
  const { prediction, calibration } = entry;
  const verdict = prediction.ood ? "out" : "in";
  showVerdict(verdict, VERDICTS[verdict].title, VERDICTS[verdict].note(prediction.label));
  showImage(entry.image);
  showClass(prediction, VERDICTS[verdict].caution);
  const threshold = calibration.document.scores[prediction.score_name];
  showScore(prediction, threshold);
  showFacts(calibration, prediction.score_name);
  setValue("request-id", entry.requestId);
  setValue("latency", `${Math.round(entry.latencyMs)} ms`, entry.latencyMs);
  setValue("served-by", `${entry.model}, ${entry.version}`);
  showCall(entry);
  byId("announcement").textContent =
    `${VERDICTS[verdict].title.join("")}. Class ${prediction.label}, ${percent(prediction.probability)}. ` +
    `${byId("p-value-text").textContent}`;
}

/** No answer for this image (or none yet): nothing of an earlier answer stays on the page. */
export function clearAnswer(image, title, note, classes) {
  showVerdict("none", ["", title], note);
  showImage(image);
  for (const id of [
    "label",
    "p-value",
    "score",
    "threshold",
    "request-id",
    "latency",
    "served-by",
    "curl",
  ]) {
    setValue(id, DASH);
  }
  setValue("probability", "");
  setValue("relation", "");
  byId("p-value-text").textContent =
    "The p-value says how many of the known images are as strange as yours.";
  showKnownClasses(classes);
  if (chartInput !== null) drawChart({ ...chartInput, score: null });
  byId("curl-copy").disabled = true;
  byId("save-image").disabled = true;
  byId("announcement").textContent = "";
}

/** A calibration with its distribution, and no image on it. */
export function showCalibration(calibration, scoreName) {
  showFacts(calibration, scoreName);
  const { values, tau } = calibration.document.scores[scoreName];
  drawChart({ values, tau, score: null, scoreName });
}

/** Nothing is known of the model's calibration. */
export function clearCalibration() {
  for (const id of ["calibration-id", "calibration-created", "calibration-n", "calibration-rule"]) {
    setValue(id, DASH);
  }
  setValue("calibration-target", "");
  drawChart(null);
}

/** Keep the chart as wide as its place. */
export function watchWidth() {
  let last = 0;
  new ResizeObserver(([place]) => {
    if (Math.abs(place.contentRect.width - last) < 1) return;
    last = place.contentRect.width;
    drawChart(chartInput);
  }).observe(byId("chart"));
}

/** Copy an image's thumbnail to a canvas of the page. */
export function paintThumbnail(canvas, image) {
  const source = image?.thumbnail;
  canvas.width = source?.width ?? 1;
  canvas.height = source?.height ?? 1;
  if (source) canvas.getContext("2d").drawImage(source, 0, 0);
}

function showVerdict(verdict, [word, rest], note) {
  byId("verdict-card").dataset.verdict = verdict;
  byId("answer").dataset.verdict = verdict;
  const strong = document.createElement("strong");
  strong.textContent = word;
  byId("verdict").replaceChildren(...(word ? [strong] : []), rest);
  byId("verdict-note").textContent = note;
}

function showImage(image) {
  const canvas = byId("thumbnail");
  paintThumbnail(canvas, image);
  const name = image?.name ?? "none yet";
  const size = image ? bytes(image.blob.size) : "";
  canvas.setAttribute(
    "aria-label",
    image ? `The image that was sent: ${name}, ${size}` : "No image sent yet",
  );
  canvas.parentElement.dataset.preview = image && !image.thumbnail ? "none" : "shown";
  byId("sent-name").textContent = name;
  byId("sent-name").title = name;
  byId("sent-size").textContent = size;
}

function showClass(prediction, caution) {
  setValue("label", prediction.label);
  byId("label").dataset.long = prediction.label.length > 9;
  setValue("probability", percent(prediction.probability), prediction.probability);
  byId("class-note").textContent = caution;
  byId("top-k").className = "bars";
  byId("top-k").setAttribute("aria-label", "Most probable classes");
  byId("top-k").replaceChildren(...prediction.top_k.map(classBar));
}

/** Before an answer: what the model can say at all. */
function showKnownClasses(classes) {
  const more = classes.length - CLASSES_SHOWN;
  byId("class-note").textContent =
    classes.length === 0
      ? "The most probable classes appear here."
      : `The model knows ${count(classes.length)} classes:`;
  const names = [
    ...classes.slice(0, CLASSES_SHOWN),
    ...(more > 0 ? [`and ${count(more)} more`] : []),
  ];
  byId("top-k").className = "chips";
  byId("top-k").setAttribute("aria-label", "Classes that the model knows");
  byId("top-k").replaceChildren(...names.map(chip));
}

function chip(name) {
  const item = document.createElement("li");
  item.textContent = name;
  return item;
}

function classBar({ label, probability }) {
  const row = document.createElement("li");
  row.dataset.label = label;
  row.dataset.value = probability;
  const [name, track, share] = ["span", "span", "span"].map((tag) => document.createElement(tag));
  name.className = "bar-name";
  name.textContent = name.title = label;
  track.className = "bar-track";
  const fill = document.createElement("span");
  fill.style.width = `${100 * probability}%`;
  track.append(fill);
  share.className = "bar-share";
  share.textContent = percent(probability);
  row.append(name, track, share);
  return row;
}

function showScore(prediction, threshold) {
  const { score, p_value: p, threshold: tau, score_name: name } = prediction;
  setValue("p-value", pValue(p), p);
  byId("p-value-text").textContent = pValueSentence(p, threshold.n);
  setValue("score", number(score), score);
  setValue("relation", prediction.ood ? "is below" : "reaches");
  setValue("threshold", number(tau), tau);
  drawChart({ values: threshold.values, tau, score, scoreName: name });
}

function showFacts({ id, document: made }, scoreName) {
  const threshold = made.scores[scoreName];
  setValue("calibration-id", id);
  setValue("calibration-created", moment(made.created), made.created);
  setValue("calibration-n", count(threshold.n), threshold.n);
  setValue("calibration-rule", threshold.rule);
  setValue("calibration-target", promise(threshold), threshold.target_tpr);
}

function showCall({ image, model, topK, prediction }) {
  const url = predictUrl(model, { topK, scoreName: prediction.score_name });
  byId("curl").textContent = [
    `curl -sS ${shellQuote(url.href)}`,
    `  -H ${shellQuote(`Content-Type: ${contentType(image.blob)}`)}`,
    `  --data-binary ${shellQuote(`@${image.name}`)}`,
  ].join(" \\\n");
  byId("curl-copy").disabled = false;
  byId("save-image").disabled = image.source === "file";
}

function drawChart(input) {
  chartInput = input;
  const place = byId("chart");
  if (input === null) {
    const note = document.createElement("p");
    note.className = "hint";
    note.textContent = "The distribution appears when the model is ready.";
    place.replaceChildren(note);
    return;
  }
  const width = Math.max(260, Math.floor(place.clientWidth));
  place.replaceChildren(distributionChart({ ...input, width }));
}

/** Text for people, and the exact value for whoever reads the page by program. */
function setValue(id, text, value = text) {
  const node = byId(id);
  node.textContent = text;
  node.dataset.value = value;
}
