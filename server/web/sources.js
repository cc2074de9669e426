// Ways for files to come in: the picker, a drop anywhere on the page, the clipboard.

/** onFiles(files) gets at least one file; onNothing(why) is called when there was none. */
export function acceptFiles({ button, input, onFiles, onNothing }) {
  button.addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    const files = [...input.files];
    // So that the same file can be chosen again.
    input.value = "";
    if (files.length > 0) onFiles(files);
  });
  acceptPastes(onFiles, onNothing);
  acceptDrops(onFiles, onNothing);
}

function acceptPastes(onFiles, onNothing) {
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length === 0) {
      onNothing("The clipboard holds no image. Copy a picture, not its address.");
      return;
    }
    event.preventDefault();
    onFiles(files);
  });
}

function acceptDrops(onFiles, onNothing) {
  // Entering a child fires before leaving its parent, so entries are counted.
  let depth = 0;
  const hover = (change) => {
    depth = Math.max(0, depth + change);
    document.body.dataset.drop = depth > 0;
  };
  addEventListener("dragenter", (event) => {
    event.preventDefault();
    hover(1);
  });
  addEventListener("dragleave", () => hover(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    hover(-depth);
    const files = [...event.dataTransfer.files];
    if (files.length > 0) onFiles(files);
    else onNothing("What was dropped is not a file. Save the picture first, then drop the file.");
  });
}

const THUMBNAIL_PX = 192;

/** A small canvas of an image, or null for what the browser cannot read (TIFF, or no image). */
export async function thumbnail(blob) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob);
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    return null;
  }
  const scale = Math.min(1, THUMBNAIL_PX / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas;
}
