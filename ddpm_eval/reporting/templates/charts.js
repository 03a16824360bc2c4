// Curves whose values can be read off with a pointer or the arrow keys, and which can be zoomed. uPlot draws them.
const Charts = (() => {
  const HEIGHT = 260;
  const charts = new Map();
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colourOf = (line) => css(line.colour === null ? "--soft" : `--colour-${line.colour}`);

  function format(value, low, high) {
    const show = (x) => (x !== 0 && (Math.abs(x) < 1e-3 || Math.abs(x) >= 1e5) ? x.toExponential(2) : String(Number(x.toPrecision(4))));
    if (value === null || value === undefined) return "not measured";
    return low === null || low === undefined || high === null || high === undefined ? show(value) : `${show(value)} [${show(low)}, ${show(high)}]`;
  }

  // One column for each line and each of its bounds, on the abscissae of all lines.
  function columns(curve) {
    const positive = curve.logarithmic.includes("y");
    const usable = (values) => values.map((y) => (positive && y !== null && y <= 0 ? null : y));
    const tables = curve.lines.map((line) => {
      const bounds = line.low.length ? [line.low, line.high] : [line.y.map(() => null), line.y.map(() => null)];
      return [line.x, usable(line.y), ...bounds.map(usable)];
    });
    return uPlot.join(tables);
  }

  function seriesOf(line) {
    const stroke = colourOf(line);
    const bound = { stroke: "transparent", width: 0, points: { show: false }, spanGaps: true };
    const shown = { label: line.name, stroke, width: line.marks ? 0 : 2, spanGaps: true, points: { show: line.marks || line.x.length < 40, size: 6, fill: stroke } };
    if (line.colour === null && !line.marks) shown.dash = [6, 4];
    if (line.marks) shown.paths = () => null;
    return [shown, bound, bound];
  }

  function axis(label) {
    const plain = (u, ticks) => ticks.map((x) => (x === null ? "" : Math.abs(x) >= 1e5 || (x !== 0 && Math.abs(x) < 1e-3) ? x.toExponential(0) : String(Number(x.toPrecision(6)))));
    return { label, labelSize: 22, labelFont: "13px system-ui, sans-serif", font: "12px system-ui, sans-serif", stroke: css("--ink"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--edge"), width: 1 }, values: plain };
  }

  function options(curve, width, onCursor) {
    const log = (name) => curve.logarithmic.includes(name);
    const bands = curve.lines.map((line, i) => ({ series: [3 * i + 3, 3 * i + 2], fill: `${colourOf(line)}40` }));
    return {
      width, height: HEIGHT, legend: { show: false }, bands,
      cursor: { y: false, points: { size: 8 } },
      scales: { x: { time: false, distr: log("x") ? 3 : 1 }, y: { distr: log("y") ? 3 : 1 } },
      axes: [axis(curve.xlabel), { ...axis(curve.ylabel), size: 62 }],
      series: [{}, ...curve.lines.flatMap(seriesOf)],
      hooks: { setCursor: [onCursor] },
    };
  }

  function key(curve, plot, list, index) {
    const x = index === null ? null : plot.data[0][index];
    const entries = curve.lines.map((line, i) => {
      const [y, low, high] = [1, 2, 3].map((k) => (index === null ? null : plot.data[3 * i + k][index]));
      const known = y !== null && y !== undefined;
      return { line, text: known ? `${line.name}: ${format(y, low, high)}` : line.name };
    });
    list.replaceChildren(...(x === null ? [] : [item("where", `${curve.xlabel} ${format(x)}`)]), ...entries.map(({ line, text }) => item(line, text)));
  }

  function item(line, text) {
    const element = document.createElement("li");
    if (line === "where") {
      element.className = "where";
    } else {
      const sample = document.createElement("i");
      sample.style.background = colourOf(line);
      if (line.marks) sample.className = "mark";
      element.append(sample);
    }
    element.append(text);
    return element;
  }

  function move(plot, index) {
    const last = plot.data[0].length - 1;
    const at = Math.min(Math.max(index, 0), last);
    plot.setCursor({ left: plot.valToPos(plot.data[0][at], "x"), top: 10 });
  }

  // Draw one chart; return what moves its cursor.
  function build(block) {
    const curve = JSON.parse(block.querySelector("script").textContent);
    const list = document.createElement("ul");
    list.className = "key";
    const holder = document.createElement("div");
    holder.className = "plot";
    holder.tabIndex = 0;
    holder.setAttribute("role", "img");
    holder.setAttribute("aria-label", `${curve.ylabel} against ${curve.xlabel} of ${curve.lines.map((line) => line.name).join(", ")}; the arrow keys read values off`);
    block.append(list, holder);
    const state = { curve, index: null, plot: null };
    const data = columns(curve);
    const draw = () => {
      if (state.plot) state.plot.destroy();
      state.plot = new uPlot(options(curve, Math.max(holder.clientWidth, 200), (plot) => {
        state.index = plot.cursor.idx === undefined ? null : plot.cursor.idx;
        key(curve, plot, list, state.index);
      }), data, holder);
      key(curve, state.plot, list, null);
    };
    draw();
    new ResizeObserver(() => { if (holder.clientWidth) state.plot.setSize({ width: holder.clientWidth, height: HEIGHT }); }).observe(holder);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    holder.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      const outside = by > 0 ? -1 : data[0].length;
      move(state.plot, (state.index === null ? outside : state.index) + by);
    });
    if (curve.zooms.length) block.insertBefore(zoomButtons(curve, state), holder);
    const at = (x) => {
      const nearest = data[0].reduce((best, value, i) => (Math.abs(value - x) < Math.abs(data[0][best] - x) ? i : best), 0);
      move(state.plot, nearest);
    };
    charts.set(curve.name, { state, at });
  }

  function zoomButtons(curve, state) {
    const row = document.createElement("div");
    row.className = "zoom";
    const xs = () => state.plot.data[0];
    const ranges = [["all", () => [xs()[0], xs()[xs().length - 1]]], ...curve.zooms.map(([label, from, to]) => [label, () => [from, to]])];
    const buttons = ranges.map(([label, range], i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.setAttribute("aria-pressed", String(i === 0));
      button.addEventListener("click", () => {
        const [min, max] = range();
        state.plot.setScale("x", { min, max });
        buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
      });
      return button;
    });
    row.append(...buttons);
    return row;
  }

  document.querySelectorAll(".chart").forEach(build);
  return { format, charts };
})();
