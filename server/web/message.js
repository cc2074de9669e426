// The banner that takes the verdict's place when there is something wrong.

import { ServerError, Unreachable } from "./api.js";
import { bytes } from "./format.js";

const LARGE_BYTES = 8 * 1024 ** 2;

const byId = (id) => document.getElementById(id);

export function showMessage({ title, text, context = "", retry = false }) {
  byId("error-title").textContent = title;
  byId("error-text").textContent = text;
  byId("error-context").textContent = context;
  byId("error-retry").hidden = !retry;
  byId("error").hidden = false;
  byId("verdict-card").dataset.covered = true;
}

export function hideMessage() {
  byId("error").hidden = true;
  byId("verdict-card").dataset.covered = false;
}

/** Whether the same request may well succeed a little later. */
export function passing(error) {
  return error instanceof Unreachable || (error instanceof ServerError && error.status === 503);
}

/** What to tell a person about an image that has no answer. */
export function explain(error, image) {
  if (error instanceof ServerError) {
    const { status, requestId, message } = error;
    return {
      title: status === 503 ? "The server cannot take this now" : "The server refused the image",
      text: message,
      context: `${image.name}: HTTP ${status}${requestId ? `, request id ${requestId}` : ""}`,
      retry: status >= 500,
    };
  }
  if (error instanceof Unreachable) {
    const large = image.blob.size > LARGE_BYTES;
    const hint = `at ${bytes(image.blob.size)} the file may be larger than the server takes`;
    const text = `${error.message}${large ? `; ${hint}` : ""}`;
    return { title: "The server cannot be reached", text, context: image.name, retry: true };
  }
  return { title: "This page failed", text: String(error), context: image.name, retry: true };
}
