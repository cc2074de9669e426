// Numbers and sentences as a person reads them. Pure functions; nothing here touches the page.

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export function count(value) {
  return grouped.format(value);
}

/** Four significant digits, without an exponent where a person would not write one. */
export function number(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e6)) return value.toExponential(2).replace("-", "−");
  const digits = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : size >= 1 ? 3 : 4;
  return value.toFixed(digits).replace("-", "−");
}

/** A percentage that never rounds up to certainty or down to impossibility. */
export function percent(share) {
  const value = 100 * share;
  if (share < 1 && value > 99.9) return "> 99.9 %";
  if (share > 0 && value < 0.1) return "< 0.1 %";
  return `${value.toFixed(value > 10 && value < 90 ? 0 : 1)} %`;
}

/** A target such as 0.95, which is given exactly. */
export function target(share) {
  return `${Number((100 * share).toFixed(4))} %`;
}

export function pValue(p) {
  if (p < 1e-4) return p.toExponential(1).replace("-", "−");
  return p.toFixed(p < 0.01 ? 4 : p < 0.1 ? 3 : 2);
}

/** The p-value as a share of the known images, in words. */
export function pValueSentence(p, size) {
  const lower = Math.round(p * (size + 1)) - 1;
  if (lower <= 0) {
    return `Stranger than every one of the ${count(size)} known images.`;
  }
  const of = p >= 0.1 ? 100 : p >= 0.001 ? 1000 : 10 ** Math.ceil(-Math.log10(p));
  return `An image like this or stranger: ${count(Math.round(p * of))} in ${count(of)} of the known images.`;
}

export function bytes(size) {
  if (size < 1024) return `${size} B`;
  if (size < 1024 ** 2) return `${(size / 1024).toFixed(1)} KiB`;
  return `${(size / 1024 ** 2).toFixed(1)} MiB`;
}

export function moment(iso) {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return iso;
  return `${date.toISOString().slice(0, 16).replace("T", " ")} UTC`;
}

/** What a calibration rule promises. */
export function promise(threshold) {
  const share = target(threshold.target_tpr);
  if (threshold.rule === "pac") {
    return `accepts at least ${share} of known images, with ${target(threshold.confidence)} confidence`;
  }
  return `accepts at least ${share} of known images on average`;
}

/** A word for a POSIX shell, quoted. */
export function shellQuote(word) {
  return `'${word.replaceAll("'", "'\\''")}'`;
}
