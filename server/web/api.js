// The only place that knows the server's routes.

const TIMEOUT_MS = 60_000;

/** The server answered, and the answer is an error. */
export class ServerError extends Error {
  constructor(message, { status, requestId = null, reasons = null }) {
    super(message);
    this.name = "ServerError";
    this.status = status;
    this.requestId = requestId;
    this.reasons = reasons;
  }
}

/** No answer arrived. */
export class Unreachable extends Error {
  constructor(message) {
    super(message);
    this.name = "Unreachable";
  }
}

/** Readiness: {ready, reasons}; reasons maps a model (or part of the server) to a sentence. */
export async function readiness() {
  const { response, body } = await call("v2/health/ready");
  if (response.ok) return { ready: true, reasons: {} };
  return { ready: false, reasons: body?.reasons ?? { server: describe(response, body) } };
}

export async function models() {
  const body = await get("v1/models");
  return body.models;
}

/** The active calibration of a model: {id, document}. */
export async function calibration(model) {
  const { response, body } = await call(`v1/models/${encodeURIComponent(model)}/calibration`);
  if (!response.ok) throw failure(response, body);
  const etag = response.headers.get("ETag") ?? "";
  return { id: etag.replace(/^W\//, "").replaceAll('"', ""), document: body };
}

export function predictUrl(model, { topK, scoreName }) {
  const url = new URL(`v1/models/${encodeURIComponent(model)}/predict`, document.baseURI);
  url.searchParams.set("top_k", topK);
  if (scoreName) url.searchParams.set("score_name", scoreName);
  return url;
}

/** Content type to send: what is not called an image is left to the server to judge. */
export function contentType(blob) {
  return blob.type.startsWith("image/") ? blob.type : "application/octet-stream";
}

export async function predict(model, blob, { topK, scoreName, signal }) {
  const { response, body } = await call(predictUrl(model, { topK, scoreName }), {
    method: "POST",
    headers: { "Content-Type": contentType(blob) },
    body: blob,
    signal,
  });
  if (!response.ok) throw failure(response, body);
  return body;
}

async function get(path) {
  const { response, body } = await call(path);
  if (!response.ok) throw failure(response, body);
  return body;
}

async function call(path, options = {}) {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  const signal = options.signal ? AbortSignal.any([options.signal, timeout]) : timeout;
  try {
    const response = await fetch(new URL(path, document.baseURI), {
      cache: "no-store",
      ...options,
      signal,
    });
    const text = await response.text();
    return { response, body: parse(text) };
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (error.name === "TimeoutError") {
      throw new Unreachable(`no answer within ${TIMEOUT_MS / 1000} s`);
    }
    throw new Unreachable("the connection failed or was closed before an answer came");
  }
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function failure(response, body) {
  return new ServerError(describe(response, body), {
    status: response.status,
    requestId: response.headers.get("X-Request-ID"),
    reasons: body?.reasons ?? null,
  });
}

function describe(response, body) {
  if (typeof body?.error === "string") return body.error;
  return `HTTP ${response.status} ${response.statusText}, without an explanation`.trim();
}
