// Window and level, and the legend of grey levels and colours.

function drawLegend() {
  const bar = (text, colors, from, to) => {
    const middle = format((from + to) / 2);
    return element("figure", {}, text,
      Object.assign(element("i", {}), { style: `background: ${gradient(colors)}` }),
      element("div", {}, ...[format(from), middle, format(to)].map((number) =>
        element("span", { textContent: number }))));
  };
  const bars = [bar(`image (${data.unit})`, TABLES.grey, ...bounds())];
  const map = MAPS[state.map], full = state.full[map.scale];
  if (state.map === "undecided") {
    const orange = data.colors.undecided.join(" ");
    bars.push(element("figure", {}, map.text, Object.assign(element("i", {}),
      { style: `background: linear-gradient(to right, #808080, rgb(${orange}))` }),
    element("div", {}, ...["0", "0.5", "1"].map((n) => element("span", { textContent: n })))));
  } else if (map.scale) {
    bars.push(bar(`${map.text} (${data.unit})`, TABLES[map.table], map.from * full, full));
  }
  byId("legend").replaceChildren(...bars);
}

function gradient(table) {
  const stops = [0, 32, 64, 96, 128, 160, 192, 224, 255].map((i) =>
    `rgb(${table[i] & 255} ${table[i] >> 8 & 255} ${table[i] >> 16 & 255})`);
  return `linear-gradient(to right, ${stops.join(", ")})`;
}

// the window from a list: of radiology, or of the leading image's values of this slice
function chooseWindow(name) {
  state.window = name;
  if (/^\d+$/.test(name)) [, state.level, state.width] = data.windows[name];
  else if (name !== "own" && images) {
    const sorted = images.images[data.start.lead].slice().sort();
    const [low, high] = name.match(/\d+/g).map((percent) =>
      sorted[Math.round(percent / 100 * (sorted.length - 1))]);
    [state.level, state.width] = [(low + high) / 2, high - low || 1];
  }
  showWindow();
  paintAll();
}

function setWindow(level, width) {
  state.window = "own";
  state.level = level;
  state.width = Math.max(width, 1e-6 * data.windows[0][2]);
  showWindow();
  paintAll();
}

function showWindow() {
  byId("window").value = state.window;
  byId("level").value = written(state.level, 4);
  byId("width").value = written(state.width, 4);
}
