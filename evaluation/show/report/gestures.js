// Mouse, touch and keys of the viewer.

const pointers = new Map();  // id -> last place, in parts of the view that was touched first
let touched = null;  // that view
let dragsWindow = false;

const placeIn = (box, event) => {
  const { left, top, width, height } = box.getBoundingClientRect();
  return [(event.clientX - left) / width, (event.clientY - top) / height];
};

stage.addEventListener("pointerdown", (event) => {
  const box = event.target.closest(".view");
  if (!box) return;
  if (!pointers.size) touched = box;
  stage.focus({ preventScroll: true });
  dragsWindow = state.tool === "window" || event.button === 2 || event.shiftKey;
  pointers.set(event.pointerId, placeIn(touched, event));
  if (event.pointerType === "mouse") stage.setPointerCapture(event.pointerId);
});

stage.addEventListener("pointermove", (event) => {
  const over = event.target.closest?.(".view") ?? touched;
  const last = pointers.get(event.pointerId);
  if (!last) {
    if (over) point(...placeIn(over, event));
    return;
  }
  const place = placeIn(touched, event), [dx, dy] = [place[0] - last[0], place[1] - last[1]];
  const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
  pointers.set(event.pointerId, place);
  if (other) {
    const apart = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1e-3;
    zoomAbout((place[0] + other[0]) / 2, (place[1] + other[1]) / 2, apart(place) / apart(last));
    setZoom(state.zoom.by, state.zoom.x + dx / 2, state.zoom.y + dy / 2);
  } else if (dragsWindow) {
    setWindow(state.level + dy * state.width, state.width * Math.exp(1.5 * dx));
  } else {
    setZoom(state.zoom.by, state.zoom.x + dx, state.zoom.y + dy);
  }
  point(...place);
});

for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
  stage.addEventListener(end, (event) => pointers.delete(event.pointerId));
}
stage.addEventListener("pointerleave", () => { if (!pointers.size) point(null); });
stage.addEventListener("contextmenu", (event) => event.preventDefault());
stage.addEventListener("dblclick", () => setZoom(1, 0, 0));
stage.addEventListener("wheel", (event) => {
  const box = event.target.closest(".view");
  // until an image was clicked the wheel scrolls the page; Ctrl is also what a touch pad's pinch sends
  if (!box || !(event.ctrlKey || document.activeElement === stage || document.fullscreenElement)) {
    return;
  }
  event.preventDefault();
  zoomAbout(...placeIn(box, event), Math.exp(-Math.max(-90, Math.min(90, event.deltaY)) / 300));
}, { passive: false });

const STEP = 0.1;  // of a view or of the window, a key
const panBy = (dx, dy) => setZoom(state.zoom.by, state.zoom.x + dx, state.zoom.y + dy);
const windowBy = (level, width) =>
  setWindow(state.level + level * state.width, state.width * Math.exp(width));
function press(id) { byId(id).click(); }
function chooseNext(id) {
  const list = byId(id);
  list.selectedIndex = (list.selectedIndex + 1) % list.length;
  list.dispatchEvent(new Event("change"));
}

// [keys, what they do, function of the key]
const SHORTCUTS = [
  [["PageDown", "n"], "next slice", () => press("next")],
  [["PageUp", "p"], "previous slice", () => press("previous")],
  [["+", "="], "zoom in", () => press("in")],
  [["-"], "zoom out", () => press("out")],
  [["0"], "whole image", () => press("fit")],
  [["ArrowLeft"], "move the images", () => panBy(STEP, 0)],
  [["ArrowRight"], "", () => panBy(-STEP, 0)],
  [["ArrowUp"], "", () => panBy(0, STEP)],
  [["ArrowDown"], "", () => panBy(0, -STEP)],
  [["Shift+ArrowLeft"], "narrower window", () => windowBy(0, -STEP)],
  [["Shift+ArrowRight"], "wider window", () => windowBy(0, STEP)],
  [["Shift+ArrowUp"], "brighter (lower level)", () => windowBy(-STEP, 0)],
  [["Shift+ArrowDown"], "darker (higher level)", () => windowBy(STEP, 0)],
  [["1"], "windows of the list, in its order", () => chooseWindow("0")],
  ...[1, 2, 3, 4].map((i) => [[String(i + 1)], "", () => data.windows[i] && chooseWindow(`${i}`)]),
  [["m"], "next map", () => chooseNext("map")],
  [["l"], "side by side or slider", () => chooseNext("layout")],
  [["r"], "next image to compare with", () => chooseNext("reference")],
  [["t"], "that image in place of all, and back", () => press("blink")],
  [["d"], "what a drag does", () => press("tool")],
  [["f"], "full screen", () => press("screen")],
  [["?"], "these shortcuts", () => press("help")],
];
const ACTIONS = new Map(SHORTCUTS.flatMap(([keys, , action]) => keys.map((key) => [key, action])));

viewer.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const typing = event.target.closest("input, select, textarea");
  const turns = event.target.closest("button, summary") && /^(Enter| )$/.test(event.key);
  if (typing || turns) return;
  const arrow = event.shiftKey && event.key.startsWith("Arrow");
  const action = ACTIONS.get(arrow ? `Shift+${event.key}` : event.key);
  if (!action) return;
  event.preventDefault();
  action();
});

byId("shortcuts").querySelector("dl").append(...SHORTCUTS.filter(([, text]) => text)
  .map(([keys, text]) => {
    const shownKeys = text === "move the images" ? ["arrows"] : text.startsWith("windows") ? ["1 … 5"]
      : keys.map((key) => key.replace("Arrow", "").replace("Page", "Page "));
    return element("div", {}, element("dt", {}, ...shownKeys.flatMap((key, i) =>
      [i ? " or " : "", element("kbd", { textContent: key })])), element("dd", { textContent: text }));
  }));
