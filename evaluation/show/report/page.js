// The page around the viewer: its controls, the order of the methods, the list of slices, colours.

const METHODS = data.titles.map((_, i) => i).slice(1);
const rows = [...document.querySelectorAll("#summary tbody tr")];  // a row a method, as in `titles`
rows.forEach((row, i) => { row.index = 1 + i; });

function mean(index, metric) {
  const numbers = data.slices.map(({ metrics }) => metrics[index][metric])
    .filter((number) => number !== null);
  return numbers.length ? numbers.reduce((sum, number) => sum + number, 0) / numbers.length : null;
}

// ways to order the methods: [text, number of a method that is large for the best]; the first is
// how they are ordered at first
const sign = ([, , larger]) => (larger ? 1 : -1);
const numbered = (value, metric) => (value === null ? -Infinity : sign(metric) * value);
const RANKS = data.metrics.map((metric, j) =>
  [`by mean ${metric[0]}`, (index) => numbered(mean(index, j), metric)]);
RANKS.push(...data.metrics.slice(0, 1).map((metric) => [`by ${metric[0]} of the slice`, (index) =>
  numbered(data.slices[state.slice].metrics[index][0], metric)]));
if (!RANKS.length) RANKS.push(["as given", (index) => -index]);
const ranking = { by: 0, rows: null };  // a rank, or "" where the table's column decides

function reorder() {
  if (ranking.by === "name") {
    state.order = [0, ...METHODS.toSorted((a, b) => data.titles[a].localeCompare(data.titles[b]))];
  } else if (ranking.by !== "") {
    const values = new Map(METHODS.map((index) => [index, RANKS[ranking.by][1](index)]));
    state.order = [0, ...METHODS.toSorted((a, b) => values.get(b) - values.get(a) || a - b)];
  } else {
    const listed = ranking.rows.map((row) => row.index);
    state.order = [0, ...listed, ...METHODS.filter((index) => !listed.includes(index))];
    return;
  }
  const sorted = rows.toSorted((a, b) => state.order.indexOf(a.index) - state.order.indexOf(b.index));
  document.querySelector("#summary tbody").append(...sorted);
}

// titles of the table's columns become buttons that sort it
document.querySelectorAll("#summary thead th").forEach((head, column) => {
  const button = element("button", { type: "button", textContent: head.textContent });
  head.replaceChildren(button);
  button.addEventListener("click", () => {
    const numeric = head.classList.contains("number");
    const larger = !/NMSE|noise|residual|slice|calls|error/.test(button.textContent) && numeric;
    const first = larger ? "descending" : "ascending";
    const other = larger ? "ascending" : "descending";
    const now = head.getAttribute("aria-sort") === first ? other : first;
    document.querySelectorAll("#summary th[aria-sort]").forEach((th) => th.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", now);
    const text = (row) => row.cells[column].textContent, direction = now === "ascending" ? 1 : -1;
    const value = (row) => {  // rows without a number are last
      const number = parseFloat(text(row));
      return Number.isNaN(number) ? direction * Number.MAX_VALUE : number;
    };
    ranking.rows = rows.toSorted((a, b) => direction
      * (numeric ? value(a) - value(b) : text(a).localeCompare(text(b), "en", { numeric: true })));
    document.querySelector("#summary tbody").append(...ranking.rows);
    ranking.by = "";
    byId("rank").value = "";
    reorder();
    makePanels();
  });
});

const option = (value, textContent) => element("option", { value, textContent });
function listen(id, event, change) { byId(id).addEventListener(event, change); }

byId("window").append(...data.windows.map(([name, level, width], i) =>
  option(i, `${name} (W ${format(width)} L ${format(level)})`)),
...PERCENTILES.map(([low, high]) =>
  option(`${low}–${high} %`, `${low} to ${high} % of: ${data.titles[data.start.lead]}`)),
option("own", "own"));
byId("map").append(...Object.entries(MAPS)
  .filter(([name, { scale }]) => name === "none" || scale in data.full)
  .map(([name, { title }]) => option(name, title)));
byId("reference").append(...data.titles.map((title, i) => option(i, title)));
function showReference() {
  for (const choice of byId("map").options) choice.textContent = MAPS[choice.value].title;
  byId("blink").textContent = `Show ${data.titles[state.reference]}`;
}
listen("reference", "change", () => {
  setReference(+byId("reference").value);
  if (images) fitDifferences();
  showReference();
  showMap();
  makePanels();
});
byId("rank").append(...RANKS.map(([text], i) => option(i, text)), option("name", "by name"),
  option("", "as the table"));
for (const id of ["left", "right"]) {
  byId(id).append(...data.titles.map((title, i) => option(i, title)));
  byId(id).value = state[id];
  listen(id, "change", () => { state[id] = +byId(id).value; makePanels(); });
}
byId("slice").max = data.slices.length;
for (const id of ["previous", "next"]) byId(id).hidden = data.slices.length === 1;
byId("slice").parentElement.hidden = data.slices.length === 1;

listen("slice", "input", () => showSlice(byId("slice").value - 1));
listen("previous", "click", () => showSlice(state.slice - 1));
listen("next", "click", () => showSlice(state.slice + 1));
listen("window", "change", () => chooseWindow(byId("window").value));
for (const id of ["level", "width"]) {
  listen(id, "change", () => {
    const level = parseFloat(byId("level").value), width = parseFloat(byId("width").value);
    if (Number.isFinite(level) && width > 0) setWindow(level, width); else showWindow();
  });
}
function showMap() {
  const { scale } = MAPS[state.map];
  byId("full").disabled = !scale || scale === "undecided";
  byId("full").value = scale ? state.full[scale] : "";
}
listen("map", "change", () => { state.map = byId("map").value; showMap(); makePanels(); });
listen("full", "change", () => {
  const full = parseFloat(byId("full").value);
  if (full > 0) state.full[MAPS[state.map].scale] = full;
  showMap();
  paintAll();
});
listen("layout", "change", () => { state.layout = byId("layout").value; makePanels(); });
listen("rank", "change", () => {
  ranking.by = byId("rank").value;
  ranking.rows ??= rows;
  document.querySelectorAll("#summary th[aria-sort]").forEach((th) => th.removeAttribute("aria-sort"));
  reorder();
  makePanels();
});
listen("cut", "input", () => stage.style.setProperty("--cut", `${byId("cut").value}%`));
listen("in", "click", () => zoomAbout(0.5, 0.5, 1.25));
listen("out", "click", () => zoomAbout(0.5, 0.5, 0.8));
listen("fit", "click", () => setZoom(1, 0, 0));

function toggle(id, change) {
  listen(id, "click", () => {
    const on = byId(id).getAttribute("aria-pressed") !== "true";
    byId(id).setAttribute("aria-pressed", on);
    change(on);
  });
}
toggle("tool", (on) => {
  state.tool = on ? "window" : "pan";
  viewer.classList.toggle("setting", on);
});
toggle("blink", (on) => { state.blink = on; paintAll(); });
listen("screen", "click", () => (document.fullscreenElement ? document.exitFullscreen()
  : viewer.requestFullscreen?.()));
document.addEventListener("fullscreenchange", () =>
  byId("screen").setAttribute("aria-pressed", document.fullscreenElement === viewer));
listen("help", "click", () => {
  byId("shortcuts").hidden = !byId("shortcuts").hidden;
  byId("help").setAttribute("aria-expanded", !byId("shortcuts").hidden);
});
byId("choice").querySelector("div").append(...data.titles.map((title, i) => {
  const box = element("input", { type: "checkbox", checked: true });
  box.addEventListener("change", () => {
    if (box.checked) state.hidden.delete(i); else state.hidden.add(i);
    makePanels();
  });
  return element("label", {}, box, title);
}));

// all slices as small pictures, which the browser loads when they come near the screen
const cards = data.slices.map(({ key, thumbnail }, number) => {
  const picture = element("img", { alt: "", loading: "lazy", decoding: "async",
    src: thumbnail.startsWith("data:") ? thumbnail : address(thumbnail) });
  const button = element("button", { type: "button" }, picture, key, element("span", {}));
  button.addEventListener("click", () => {
    showSlice(number);
    viewer.scrollIntoView({ block: "start" });
    stage.focus({ preventScroll: true });
  });
  return Object.assign(element("li", {}, button), { number, button });
});

const [main] = data.metrics;  // by which slices can be ordered, if there is one
function listSlices() {
  const by = +byId("by").value, order = byId("order").value;
  const direction = { data: 0, ascending: 1, descending: -1 }[order];
  const value = ({ number }) => data.slices[number].metrics[by][0] ?? Infinity;
  const wanted = byId("filter").value.toLowerCase();
  const listed = cards.filter(({ number }) => data.slices[number].key.toLowerCase().includes(wanted));
  if (direction) {
    listed.sort((a, b) => (direction * (value(a) < value(b) ? -1 : value(a) > value(b))));
  }
  for (const card of main ? listed : []) {
    const number = value(card), text = Number.isFinite(number) ? number.toFixed(main[1]) : "–";
    card.button.lastChild.textContent = text + (/\(dB\)/.test(main[0]) ? " dB" : "");
  }
  byId("gallery").replaceChildren(...listed);
  byId("count").textContent = `${listed.length} slice${listed.length === 1 ? "" : "s"}`;
}
byId("list").hidden = data.slices.length === 1;
if (main) {
  const name = main[0].replace(" (dB)", "");
  byId("order").append(option("ascending", `lowest ${name} first`),
    option("descending", `highest ${name} first`));
  byId("by").previousElementSibling.textContent = `${name} of`;
} else {
  for (const id of ["order", "by"]) byId(id).parentElement.hidden = true;
}
byId("by").append(...METHODS.map((i) => option(i, data.titles[i])));
byId("by").value = data.start.right || METHODS[0];
listen("order", "change", listSlices);
listen("by", "change", listSlices);
listen("filter", "input", listSlices);
viewer.addEventListener("slice", () => cards.forEach(({ number, button }) => {
  if (number === state.slice) button.setAttribute("aria-current", "true");
  else button.removeAttribute("aria-current");
}));

// colours of the page: the system's, or what was chosen last
const THEMES = ["automatic", "light", "dark"];
function setTheme(name) {
  if (name === "automatic") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  byId("theme").textContent = `Colours: ${name}`;
  byId("theme").onclick = () => setTheme(THEMES[(THEMES.indexOf(name) + 1) % THEMES.length]);
  try { localStorage.setItem("report-theme", name); } catch { /* not allowed: for this visit only */ }
}
let chosen = null;
try { chosen = localStorage.getItem("report-theme"); } catch { /* as above */ }
setTheme(THEMES.includes(chosen) ? chosen : "automatic");

stage.style.setProperty("--cut", "50%");
setZoom(1, 0, 0);
state.map = MAPS[data.start.map].scale in data.full ? data.start.map : "none";
byId("map").value = state.map;
showMap();
showReference();
showWindow();
listSlices();
showSlice(0);
