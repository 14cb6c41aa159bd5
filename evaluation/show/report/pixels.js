"use strict";
// Images of the slices: where they are, how they are decoded and painted.

const byId = (id) => document.getElementById(id);
const element = (tag, properties, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};
// titles: of all images, the first of which the others are compared with at first; direct: numbers
// of those without a prior; metrics: of images against the first, empty if it is no truth; slices:
// key, metrics by image, thumbnail, perhaps a file, and values: factor and offset to the unit
const data = JSON.parse(byId("data").textContent);

const KEPT = 12;  // decoded slices in memory
const decoded = new Map();  // number of a slice -> promise of its images
const waiting = new Map();  // number of a slice -> what to call with the content of its file
const address = (file) => file.split("/").map(encodeURIComponent).join("/");

// called by the files of the slices: fetch() does not work on pages opened from a disk
function receive(number, content) {
  waiting.get(number)?.(content);
  waiting.delete(number);
}

function content(number) {
  const { file } = data.slices[number];
  if (!file) return Promise.resolve(JSON.parse(byId(`slice-${number}`).textContent));
  return new Promise((resolve, reject) => {
    waiting.set(number, resolve);
    const script = element("script", { src: address(file) });
    script.onload = () => script.remove();
    script.onerror = () => {
      script.remove();
      reject(new Error(`${file} is missing: this page and its folder of images belong together.`));
    };
    document.head.append(script);
  });
}

// the images of a slice in its unit: { shape, images, maps }, as Float32Array
function load(number) {
  if (!decoded.has(number)) {
    const made = content(number).then((slice) => decodeSlice(slice, data.slices[number].values));
    made.catch(() => decoded.delete(number));  // so that it is tried again
    decoded.set(number, made);
    if (decoded.size > KEPT) decoded.delete(decoded.keys().next().value);
  }
  return decoded.get(number);
}

async function decodeSlice({ shape, images, maps }, [factor, offset]) {
  const all = await Promise.all(images.map((image) => decode(image, shape, factor, offset)));
  const ofSamples = await Promise.all(maps.map(async (byName) => Object.fromEntries(
    await Promise.all(Object.entries(byName).map(async ([name, map]) =>
      [name, await decode(map, shape, name === "undecided" ? 1 : factor, 0)])))));
  return { shape, images: all, maps: ofSamples };
}

// the reverse of evaluation/show/pixels.py
async function decode({ step, data: text }, [height, width], factor, offset) {
  const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = height * width, levels = new Int32Array(count), values = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    const folded = bytes[i] | (bytes[count + i] << 8);
    const difference = folded & 1 ? -(folded + 1) / 2 : folded / 2;
    const left = i % width ? levels[i - 1] : 0, above = i >= width ? levels[i - width] : 0;
    const corner = i % width && i >= width ? levels[i - width - 1] : 0;
    const least = Math.min(left, above), most = Math.max(left, above);
    levels[i] = difference
      + (corner >= most ? least : corner <= least ? most : left + above - corner);
    values[i] = factor * (step * levels[i]) + offset;
  }
  return values;
}

// colours as 256 numbers 0xAABBGGRR, as they lie in the memory of a canvas
function colorTable(text) {
  const rgb = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return Uint32Array.from({ length: 256 }, (_, i) =>
    (255 << 24 | rgb[3 * i + 2] << 16 | rgb[3 * i + 1] << 8 | rgb[3 * i]) >>> 0);
}
const TABLES = {
  grey: Uint32Array.from({ length: 256 }, (_, i) => (255 << 24 | i * 0x010101) >>> 0),
  signed: colorTable(data.colors.signed),
  size: colorTable(data.colors.size),
};

// paint values from low to high in the colours of a table, and over them a colour where it is opaque
function paint(canvas, [height, width], values, low, high, table, opacities, color) {
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer), factor = 256 / (high - low || 1);
  for (let i = 0; i < pixels.length; i++) {
    const place = (values[i] - low) * factor;
    pixels[i] = table[place < 0 ? 0 : place > 255 ? 255 : place | 0];
  }
  if (opacities) opacities.forEach((part, i) => {
    for (let c = 4 * i; c < 4 * i + 3; c++) image.data[c] += part * (color[c % 4] - image.data[c]);
  });
  context.putImageData(image, 0, 0);
}
