// The drawing area: strokes are kept as points, so they can be undone, recoloured and redrawn at
// any resolution; what is sent is always SIZE x SIZE.

export const SIZE = 280;
const PEN = 28;

export class Pad {
  #canvas;
  #strokes = [];
  #current = null;
  #frame = 0;
  #onStart;
  #onChange;
  /** True for dark ink on light paper. */
  swapped = false;

  /** onStart() when a stroke begins; onChange() when the finished strokes are other ones. */
  constructor(canvas, { onStart, onChange }) {
    this.#canvas = canvas;
    this.#onStart = onStart;
    this.#onChange = onChange;
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#extend(event));
    canvas.addEventListener("pointerup", (event) => this.#finish(event));
    canvas.addEventListener("pointercancel", (event) => this.#finish(event));
    new ResizeObserver(() => this.#paint()).observe(canvas);
  }

  get empty() {
    return this.#strokes.length === 0;
  }

  get strokeCount() {
    return this.#strokes.length;
  }

  undo() {
    this.#strokes.pop();
    this.#changed();
  }

  clear() {
    this.#strokes = [];
    this.#changed();
  }

  swap() {
    this.swapped = !this.swapped;
    this.#changed();
  }

  /** The drawing as a PNG of SIZE x SIZE. */
  async toPng() {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIZE;
    draw(canvas, this.#strokes, this.swapped);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }

  #changed() {
    this.#paint();
    this.#onChange();
  }

  #begin(event) {
    if (event.button !== 0 || !event.isPrimary || this.#current) return;
    event.preventDefault();
    this.#canvas.setPointerCapture(event.pointerId);
    this.#current = { pointer: event.pointerId, points: [this.#locate(event)] };
    this.#onStart();
    this.#schedule();
  }

  #extend(event) {
    if (event.pointerId !== this.#current?.pointer) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const step of events.length ? events : [event]) {
      this.#current.points.push(this.#locate(step));
    }
    this.#schedule();
  }

  #finish(event) {
    if (event.pointerId !== this.#current?.pointer) return;
    this.#strokes.push(this.#current.points);
    this.#current = null;
    this.#changed();
  }

  #locate(event) {
    const box = this.#canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) * SIZE) / box.width,
      ((event.clientY - box.top) * SIZE) / box.height,
    ];
  }

  #schedule() {
    this.#frame ||= requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const side = Math.round((this.#canvas.clientWidth || SIZE) * (window.devicePixelRatio || 1));
    if (this.#canvas.width !== side) this.#canvas.width = this.#canvas.height = side;
    const strokes = this.#current ? [...this.#strokes, this.#current.points] : this.#strokes;
    draw(this.#canvas, strokes, this.swapped);
  }
}

function draw(canvas, strokes, swapped) {
  const context = canvas.getContext("2d");
  const [paper, ink] = swapped ? ["#ffffff", "#000000"] : ["#000000", "#ffffff"];
  context.setTransform(canvas.width / SIZE, 0, 0, canvas.height / SIZE, 0, 0);
  context.fillStyle = paper;
  context.fillRect(0, 0, SIZE, SIZE);
  context.strokeStyle = ink;
  context.lineWidth = PEN;
  context.lineCap = context.lineJoin = "round";
  for (const points of strokes) {
    context.beginPath();
    trace(context, points);
    context.stroke();
  }
}

/** Quadratic curves through the midpoints: smooth at any sampling rate, and no overshoot. */
function trace(context, points) {
  const [first, ...rest] = points;
  const last = points.at(-1);
  context.moveTo(...first);
  rest.slice(0, -1).forEach(([x, y], i) => {
    const [nextX, nextY] = rest[i + 1];
    context.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
  });
  // A line of no length would not be painted, and a tap is a dot.
  context.lineTo(last[0] + 0.01, last[1]);
}
