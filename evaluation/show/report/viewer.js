// The viewer of one slice: panels, window, maps, legend. `state` is all that it shows.

const SIZE = { table: "size", from: 0 };
const MAPS = {
  none: { title: "nothing" },
  size: { scale: "error", ...SIZE },  // its words depend on what images are compared with
  signed: { scale: "error", table: "signed", from: -1 },
  std: { title: "standard deviation", text: "standard deviation over samples", scale: "std",
    ...SIZE },
  width: { title: "5–95 % interval", text: "width of the interval from 5 to 95 % of the samples",
    scale: "width", ...SIZE },
  undecided: { title: "not decided by the data", scale: "undecided",
    text: "part of the detail that is not decided by the data (orange)" },
};
const PERCENTILES = [[1, 99], [5, 95]];
const MOST_ZOOM = 32;
const state = {
  slice: 0,
  level: data.windows[0][1],
  width: data.windows[0][2],
  // number of a window, percentiles of the leading image's values such as "1–99 %", or "own"
  window: data.unit === "HU" ? "0" : "1–99 %",
  map: "none",
  reference: 0,  // number of the image that others are compared with
  full: { ...data.full },
  layout: "all",
  left: data.start.left,
  right: data.start.right,
  order: data.titles.map((_, i) => i),
  hidden: new Set(),
  zoom: { by: 1, x: 0, y: 0 },  // x, y: place of the image's corner, in parts of the view
  tool: "pan",  // or "window"
  blink: false,  // whether the reference is shown in place of all images
};
const viewer = byId("viewer"), stage = byId("stage");
let images = null;  // of the slice that is shown
let views = [];  // { box, layers: [{ index, canvas }], map: null or a key of MAPS }

// a number in the unit, with an exponent where it would have many zeros
function written(value, digits) {
  if (data.unit === "HU") return String(Math.round(value));
  const short = Number(value.toPrecision(digits)), size = Math.abs(short);
  return size && (size < 1e-3 || size >= 1e5) ? short.toExponential() : String(short);
}
function format(value) {
  return written(value, 3).replaceAll("-", "−");
}
const unit = () => (data.unit === "HU" ? " HU" : "");
const bounds = () => [state.level - state.width / 2, state.level + state.width / 2];
const hasMap = (index, map) =>
  MAPS[map].scale === "error" ? index !== state.reference : map in (images?.maps[index] ?? {});

// the image that others are compared with: the truth, if there is one, or any other
function setReference(index) {
  state.reference = index;
  const title = data.titles[index], what = index || !data.metrics.length ? "difference" : "error";
  Object.assign(MAPS.size, { title: `|${what}|`, text: `|image − ${title}|` });
  Object.assign(MAPS.signed, { title: `signed ${what}`, text: `image − ${title}` });
}
setReference(0);

// full scale of differences in this slice: 1, 2 or 5 times a power of ten, as in windows.py
function fitDifferences() {
  const large = data.titles.map((_, i) => i)
    .filter((i) => i !== state.reference && !data.direct.includes(i))
    .map((i) => mapValues(i, "size").sort().at(-1 - Math.floor(images.shape[0] * images.shape[1] / 200)))
    .sort((a, b) => a - b);
  const needed = large[large.length >> 1];
  if (!(needed > 0)) return;
  const power = Math.floor(Math.log10(needed));
  const steps = [1, 2, 5, 10].map((step) => Number(`${step}e${power}`));
  const far = (step) => Math.abs(Math.log(step / needed));
  state.full.error = steps.reduce((best, step) => (far(step) < far(best) ? step : best));
}

function inWords(index, map) {
  const [low, high] = bounds();
  if (!map) return `W ${format(state.width)} L ${format(state.level)}${unit()}`;
  if (map === "undecided") return `W ${format(state.width)} L ${format(state.level)}${unit()}, orange`;
  const full = state.full[MAPS[map].scale];
  return `${format(MAPS[map].from * full)} … ${format(full)}${unit()}`;
}

function metricsInWords(index) {
  const numbers = data.slices[state.slice].metrics[index];
  return numbers ? data.metrics.map(([title, digits], j) =>
    `${title.replace(" (dB)", "")} ${numbers[j]?.toFixed(digits) ?? "–"}`).join(" · ") : "";
}

function makeView(indices, map) {
  const layers = indices.map((index, i) => {
    const canvas = element("canvas", {});
    canvas.setAttribute("role", "img");
    const side = indices.length > 1 ? ` ${["left", "right"][i]}` : "";
    return { index, canvas, layer: element("div", { className: `layer${side}` }, canvas) };
  });
  // the right one lies below the left one, of which a part is cut off
  const box = element("div", { className: "view" }, ...layers.map(({ layer }) => layer).reverse(),
    element("i", { className: "cross" }), element("span", { className: "corner" }),
    element("span", { className: "value" }));
  if (indices.length > 1 && !map) {
    box.append(...layers.map(({ index }, i) => element("span",
      { className: `name ${i ? "right" : ""}`, textContent: data.titles[index] })));
  }
  views.push({ box, layers, map });
  return box;
}

// figures of the images in the order of `state`
function makePanels() {
  views = [];
  const map = state.map === "none" ? null : state.map;
  if (state.layout === "slider") {
    const pair = [state.left, state.right];
    const panels = [element("figure", { className: "panel" }, makeView(pair, null))];
    if (map && pair.some((index) => hasMap(index, map))) {
      panels.push(element("figure", { className: "panel" }, makeView(pair, map)));
    }
    stage.replaceChildren(...panels);
  } else {
    stage.replaceChildren(...state.order.filter((i) => !state.hidden.has(i)).map((index) => {
      const caption = element("figcaption", {}, element("b", { textContent: data.titles[index] }),
        " ", element("span", { className: "metrics" }));
      const panel = element("figure", { className: "panel" }, caption, makeView([index], null));
      if (map && hasMap(index, map)) panel.append(makeView([index], map));
      return Object.assign(panel, { index });
    }));
  }
  viewer.classList.toggle("slider", state.layout === "slider");
  stage.style.maxWidth = `${stage.children.length * 30}rem`;
  paintAll();
}

// what a view shows of an image: values in the unit, from, to, colours, opacities of a colour
function shown(index, map) {
  const image = images.images[state.blink ? state.reference : index], [low, high] = bounds();
  if (!map) return [image, low, high, TABLES.grey];
  if (!hasMap(index, map)) return [new Float32Array(image.length), 0, 1, TABLES.grey];
  if (map === "undecided") {
    return [images.images[index], low, high, TABLES.grey, images.maps[index].undecided,
      data.colors.undecided];
  }
  const full = state.full[MAPS[map].scale];
  return [mapValues(index, map), MAPS[map].from * full, full, TABLES[MAPS[map].table]];
}

function mapValues(index, map) {
  if (MAPS[map].scale !== "error") return images.maps[index][map];
  const image = images.images[index], other = images.images[state.reference];
  return image.map((value, i) => (map === "size" ? Math.abs(value - other[i]) : value - other[i]));
}

function paintAll() {
  if (!images) return;
  for (const { box, layers, map } of views) {
    for (const { index, canvas } of layers) {
      paint(canvas, images.shape, ...shown(index, map));
      const what = map ? `${data.titles[index]}: ${MAPS[map].text}` : data.titles[index];
      canvas.setAttribute("aria-label", [what, inWords(index, map), map ? "" : metricsInWords(index)]
        .filter(Boolean).join("; "));
    }
    box.querySelector(".corner").textContent = inWords(layers[0].index, map);
  }
  for (const panel of stage.querySelectorAll(".panel:has(figcaption)")) {
    panel.querySelector(".metrics").textContent = metricsInWords(panel.index);
  }
  drawLegend();
}

async function showSlice(number) {
  number = Math.min(data.slices.length - 1, Math.max(0, number));
  state.slice = number;
  const { key } = data.slices[number];
  byId("slice").value = number + 1;
  byId("slice").setAttribute("aria-valuetext", key);
  byId("status").textContent = `${number + 1} of ${data.slices.length}: ${key}`;
  byId("previous").disabled = number === 0;
  byId("next").disabled = number === data.slices.length - 1;
  stage.setAttribute("aria-busy", "true");
  try {
    const found = await load(number);
    if (state.slice !== number) return;  // another one was chosen meanwhile
    images = found;
    byId("trouble").hidden = true;
    if (/%/.test(state.window)) chooseWindow(state.window);
    reorder();
    makePanels();
    for (const beside of [number + 1, number - 1]) if (data.slices[beside]) load(beside).catch(() => {});
  } catch (error) {
    if (state.slice !== number) return;
    images = null;
    stage.replaceChildren();
    byId("trouble").hidden = false;
    byId("trouble").textContent = error.message;
  } finally {
    if (state.slice === number) stage.removeAttribute("aria-busy");
    viewer.dispatchEvent(new Event("slice"));
  }
}

function setZoom(by, x, y) {
  by = Math.min(MOST_ZOOM, Math.max(1, by));
  const inside = (place) => Math.min(0, Math.max(1 - by, place));
  state.zoom = { by, x: inside(x), y: inside(y) };
  for (const [name, value] of [["--x", `${100 * state.zoom.x}%`], ["--y", `${100 * state.zoom.y}%`],
    ["--zoom", by]]) stage.style.setProperty(name, value);
  stage.classList.toggle("zoomed", by > 1);
  byId("zoom").textContent = `${by.toFixed(1)}×`;
}

// zoom about a point of the views, in parts of their sides
function zoomAbout(px, py, factor) {
  const { by, x, y } = state.zoom, now = Math.min(MOST_ZOOM, Math.max(1, by * factor));
  setZoom(now, px - (px - x) * now / by, py - (py - y) * now / by);
}

// values of all images at a point of the views; null: nowhere
function point(px, py) {
  stage.classList.toggle("pointed", px !== null && images !== null);
  if (px === null || !images) return;
  const [height, width] = images.shape, { by, x, y } = state.zoom;
  const column = Math.floor((px - x) / by * width), row = Math.floor((py - y) / by * height);
  stage.style.setProperty("--cx", `${100 * px}%`);
  stage.style.setProperty("--cy", `${100 * py}%`);
  if (column < 0 || row < 0 || column >= width || row >= height) return;
  const place = row * width + column;
  for (const { box, layers, map } of views) {
    const values = layers.filter(({ index }) => !map || hasMap(index, map)).map(({ index }) =>
      format(!map ? images.images[state.blink ? state.reference : index][place]
        : mapValue(index, map, place)));
    box.querySelector(".value").textContent = `(${row}, ${column}) ${values.join(" | ")}`;
  }
}

function mapValue(index, map, place) {
  if (MAPS[map].scale !== "error") return images.maps[index][map][place];
  const difference = images.images[index][place] - images.images[state.reference][place];
  return map === "size" ? Math.abs(difference) : difference;
}
