"use strict";
// Draws the page's charts with ECharts from the data beside them; filters, themes, files, numbers.
(() => {
  const root = document.documentElement;
  const state = { off: new Set(), levels: [] };
  const charts = [];

  // ---- numbers -------------------------------------------------------------------------------
  const SPACE = "\u00a0", NONE = "–";
  const digits = (value, most) => String(Number(value.toPrecision(most)));
  const fixed = (value, places) => value.toFixed(places).replace("-", "−");
  const sizes = [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]];
  const bytes = (value) => {
    const [unit, name] = sizes.find(([least]) => value >= 0.9995 * least) ?? [1, "B"];
    return digits(value / unit, 3) + SPACE + name;
  };
  const seconds = (value) => {
    if (value < 10) return digits(value, 2) + SPACE + "s";
    if (value < 59.5) return fixed(value, 0) + SPACE + "s";
    const minutes = Math.round(value / 60);
    return minutes < 60 ? minutes + SPACE + "min" : digits(value / 3600, 3) + SPACE + "h";
  };
  const write = (value, unit) => {
    if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
    if (unit === "percent") return fixed(value, 1) + SPACE + "%";
    if (unit === "points") return (value > 0 ? "+" : "") + fixed(value, 2);
    if (unit === "count") return Math.round(value).toLocaleString("en");
    if (unit === "bytes") return bytes(value);
    if (unit === "seconds") return seconds(value);
    return digits(value, 4).replace("-", "−");
  };
  const tick = (value, unit) => {
    if (unit === "bytes") return value === 0 ? "0" : bytes(value);
    if (unit === "seconds") return value === 0 ? "0" : seconds(value);
    return value.toLocaleString("en", { maximumSignificantDigits: 6 }).replace("-", "−");
  };

  // ---- colors: those of the style sheet, for the screen's theme or always light for files -------
  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  const palette = (scheme) => {
    probe.style.colorScheme = scheme ?? "";
    const color = (name) => {
      probe.style.color = `var(--${name})`;
      return getComputedStyle(probe).color;
    };
    const tones = ["soft", ...Array.from({ length: 8 }, (_, i) => `tone-${i + 1}`)].map(color);
    const names = ["ink", "quiet", "line", "faint", "card", "cold", "middle", "warm", "empty"];
    return { tones, ...Object.fromEntries(names.map((name) => [name, color(name)])) };
  };
  const channels = (color) => color.match(/[\d.]+/g).slice(0, 3).map(Number);
  const blend = (from, to, share) => {
    const [a, b] = [channels(from), channels(to)];
    return a.map((value, i) => value + (b[i] - value) * share);
  };
  const isDark = (rgb) => 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] < 140;
  const DASHES = ["solid", "solid", [7, 4], [2, 3], [9, 3, 2, 3], [12, 4], [4, 2], [1, 2], [6, 2, 1, 2]];
  const MARKS = [
    "circle", "circle", "rect", "triangle", "diamond", "roundRect", "pin", "arrow", "emptyCircle",
  ];
  const FONT = getComputedStyle(document.body).fontFamily.replaceAll('"', "'"); // goes into attributes

  // ---- what is shown of a chart: without the methods and layers that are switched off --------------
  const chosen = (spec) => {
    if (spec.kind !== "choice") return spec;
    const fits = (key) => key.split("\n").every((l, i) => l === "*" || l === state.levels[i]);
    const key = Object.keys(spec.charts).find(fits);
    return key === undefined ? null : spec.charts[key];
  };
  const shown = (spec, hidden) => {
    const on = (one) => !state.off.has(one.method) && !hidden.has(one.label);
    if (spec.kind === "lines") return { ...spec, lines: spec.lines.filter(on) };
    if (spec.kind === "boxes") return { ...spec, boxes: spec.boxes.filter(on) };
    if (spec.kind === "bars") {
      const kept = places(spec.x.names);
      const pick = (list) => list && kept.map((i) => list[i]);
      const bars = spec.bars.filter(on).map((bar) => ({
        ...bar, values: pick(bar.values), low: pick(bar.low), high: pick(bar.high),
      }));
      const x = { ...spec.x, names: pick(spec.x.names) };
      return { ...spec, x, bars, total: pick(spec.total) };
    }
    if (spec.kind === "heatmap") {
      const rows = places(spec.y.names), columns = places(spec.x.names);
      const cut = (table) => rows.map((r) => columns.map((c) => table[r]?.[c]));
      const x = { ...spec.x, names: columns.map((c) => spec.x.names[c]) };
      const y = { ...spec.y, names: rows.map((r) => spec.y.names[r]) };
      return { ...spec, x, y, values: cut(spec.values), texts: spec.texts.length ? cut(spec.texts) : [] };
    }
    return spec;
  };
  const places = (names) => [...names.keys()].filter((i) => !state.off.has(names[i]));

  // ---- ECharts options, by kind of chart -------------------------------------------------------
  const textStyle = (look, color) => ({ color: color ?? look.quiet, fontFamily: FONT, fontSize: 12 });
  const axisOf = (axis, look, across, more) => ({
    type: axis.names ? "category" : "value",
    data: axis.names,
    name: across ? axis.title : "", // the upright one's stands above the chart
    nameLocation: "middle",
    nameGap: 26,
    nameTextStyle: textStyle(look),
    min: axis.low, max: axis.high,
    minInterval: axis.unit === "count" ? 1 : undefined,
    splitNumber: across ? 6 : 5,
    axisLabel: {
      ...textStyle(look), hideOverlap: true,
      formatter: axis.names ? undefined : (value) => tick(value, axis.unit),
    },
    axisLine: { show: across, lineStyle: { color: look.line, width: 1.5 } },
    axisTick: { show: false },
    splitLine: { show: !across, lineStyle: { color: look.faint } },
    ...more,
  });
  const element = (tag, text, parts = []) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    made.append(...parts);
    return made;
  };
  const tip = (title, rows) => {
    const lines = rows.map(([color, name, value]) => {
      const dot = element("i");
      dot.style.background = color ?? "transparent";
      return element("p", undefined, [dot, element("span", name), element("b", value)]);
    });
    return element("div", undefined, [element("h4", title), ...lines]);
  };
  const tooltip = (look, trigger, formatter) => ({
    trigger, formatter, confine: true, className: "tip", transitionDuration: 0,
    axisPointer: { type: "line", lineStyle: { color: look.quiet, type: "solid", width: 1 } },
  });
  const around = (low, high) => {
    const known = [...low, ...high].filter((value) => value !== null);
    return known.length ? [Math.min(...known), Math.max(...known)] : [0, 1];
  };

  const GRID = { left: 2, right: 14, top: 10, bottom: 2, outerBoundsMode: "same", outerBoundsContain: "all" };

  const lines = (spec, look, bare) => {
    const series = [];
    for (const line of spec.lines) {
      const color = look.tones[line.tone];
      const points = line.x.map((x, i) => [x, line.y[i]]);
      if (line.low) {
        const known = [...line.x.keys()].filter((i) => line.low[i] !== null && line.high[i] !== null);
        const edge = [
          ...known.map((i) => [line.x[i], line.low[i]]),
          ...known.reverse().map((i) => [line.x[i], line.high[i]]),
        ];
        series.push({
          type: "custom", name: line.label, data: edge, silent: true, z: 1, clip: true,
          tooltip: { show: false },
          renderItem: (params, api) => params.dataIndex || edge.length < 3 ? null : {
            type: "polygon", shape: { points: edge.map((point) => api.coord(point)) },
            style: { fill: color, opacity: 0.16 },
          },
        });
      }
      series.push({
        type: "line", name: line.label, data: points, z: 3, color,
        lineStyle: { width: bare ? 2 : 2.25, type: bare ? "solid" : DASHES[line.tone] },
        areaStyle: bare ? { opacity: 0.1 } : undefined,
        symbol: MARKS[line.tone], symbolSize: 6,
        showSymbol: !bare && points.length <= 25, emphasis: { focus: "series" },
      });
    }
    const named = Boolean(spec.x.names);
    const ends = spec.lines.flatMap((line) => line.x).filter((value) => value !== null);
    const only = new Set(ends).size < 2;
    const head = (x) => named ? `${spec.x.name} ${spec.x.names[x]}` : `${spec.x.name} ${write(x, spec.x.unit)}`;
    const about = (given) => {
      const found = given.filter((one) => one.seriesType === "line" && one.value[1] !== null);
      const rows = found.map((one) => {
        const line = spec.lines.find(({ label }) => label === one.seriesName);
        const at = line.low && line.low[one.dataIndex] !== null
          ? ` (${write(line.low[one.dataIndex], spec.y.unit)} to ${write(line.high[one.dataIndex], spec.y.unit)})` : "";
        return [one.color, one.seriesName, write(one.value[1], spec.y.unit) + at];
      });
      return found.length ? tip(head(found[0].value[0]), rows) : "";
    };
    if (bare) {
      const none = { show: false };
      return {
        grid: { left: 4, right: 8, top: 8, bottom: 4 }, series,
        xAxis: { type: "value", min: "dataMin", max: "dataMax", ...none },
        yAxis: { type: "value", scale: true, ...none },
        tooltip: tooltip(look, "axis", about),
      };
    }
    return {
      grid: GRID, series,
      xAxis: axisOf(spec.x, look, true, named ? { boundaryGap: true } : {
        min: spec.x.low ?? (only ? undefined : "dataMin"), max: spec.x.high ?? (only ? undefined : "dataMax"),
        scale: true,
      }),
      yAxis: axisOf(spec.y, look, false, { scale: true }),
      dataZoom: ends.length > 60 ? [{
        type: "inside", zoomOnMouseWheel: "ctrl", moveOnMouseMove: false, moveOnMouseWheel: false,
        preventDefaultMouseMove: false, filterMode: "none",
      }] : undefined,
      tooltip: tooltip(look, "axis", about),
    };
  };

  const bars = (spec, look) => {
    const series = spec.bars.map((bar) => ({
      type: "bar", name: bar.label, data: bar.values, color: look.tones[bar.tone],
      stack: spec.stacked ? "all" : undefined, barCategoryGap: "28%", barGap: "12%", barMaxWidth: 72,
      emphasis: { focus: "none" },
    }));
    spec.bars.forEach((bar, index) => {
      if (!bar.low) return;
      const layout = { barCategoryGap: "28%", barGap: "12%", barMaxWidth: 72, count: spec.bars.length };
      series.push({
        type: "custom", silent: true, z: 5, tooltip: { show: false },
        data: bar.values.map((_, i) => [i, bar.low[i], bar.high[i]]), encode: { x: 0, y: [1, 2] },
        renderItem: (params, api) => {
          if (!Number.isFinite(api.value(1))) return null;
          const shift = api.barLayout(layout)[index].offsetCenter;
          const [x, low] = api.coord([api.value(0), api.value(1)]);
          const high = api.coord([api.value(0), api.value(2)])[1];
          const path = [[-4, low, 4, low], [-4, high, 4, high], [0, low, 0, high]];
          return { type: "group", children: path.map(([x1, y1, x2, y2]) => ({
            type: "line", style: { stroke: look.ink, lineWidth: 1.5 },
            shape: { x1: x + shift + x1, y1, x2: x + shift + x2, y2 },
          })) };
        },
      });
    });
    if (spec.total) {
      series.push({
        type: "custom", silent: true, z: 6, data: spec.total.map((value, i) => [i, value]),
        renderItem: (params, api) => {
          if (!Number.isFinite(api.value(1))) return null;
          const [x, y] = api.coord([api.value(0), api.value(1)]);
          const half = Math.min(0.45 * api.size([1, 0])[0], 44);
          return {
            type: "line", shape: { x1: x - half, x2: x + half, y1: y, y2: y },
            style: { stroke: look.ink, lineWidth: 2.5 },
          };
        },
      });
    }
    const about = (given) => {
      const index = given[0].dataIndex;
      const rows = spec.bars.map((bar) => {
        const edge = bar.low && bar.low[index] !== null
          ? ` (${write(bar.low[index], spec.y.unit)} to ${write(bar.high[index], spec.y.unit)})` : "";
        return [look.tones[bar.tone], bar.label, write(bar.values[index], spec.y.unit) + edge];
      });
      if (spec.total) rows.push([look.ink, spec.total_label, write(spec.total[index], spec.y.unit)]);
      return tip(`${spec.x.name} ${spec.x.names[index]}`, rows);
    };
    const longest = Math.max(...spec.x.names.map((name) => name.length));
    const slant = longest > 3 && longest * spec.x.names.length > 60 && spec.x.names.length <= 30;
    const x = axisOf(spec.x, look, true, { boundaryGap: true });
    x.axisLabel = {
      ...x.axisLabel, rotate: slant ? 35 : 0, interval: slant || spec.x.names.length <= 8 ? 0 : "auto",
      width: 110, overflow: "truncate",
    };
    return {
      grid: GRID, series, xAxis: x, yAxis: axisOf(spec.y, look, false),
      tooltip: { ...tooltip(look, "axis", about), axisPointer: { type: "shadow" } },
    };
  };

  const heatmap = (spec, look, bare, width) => {
    const known = spec.values.flat().filter((value) => value !== null && value !== undefined);
    let [low, high] = around(known, []);
    low = spec.value.low ?? low;
    high = spec.value.high ?? high;
    if (spec.diverging) {
      const most = Math.max(Math.abs(low), Math.abs(high), 1e-9);
      [low, high] = [-most, most];
    } else if (low === high) [low, high] = [low - 1, high + 1];
    const ramp = spec.diverging ? [look.warm, look.middle, look.cold] : [look.middle, look.cold];
    const under = (value) => {
      const share = Math.min(1, Math.max(0, (value - low) / (high - low)));
      const place = share * (ramp.length - 1), first = Math.min(Math.floor(place), ramp.length - 2);
      return blend(ramp[first], ramp[first + 1], place - first);
    };
    const data = [];
    spec.values.forEach((row, y) => row.forEach((value, x) => {
      if (value === null || value === undefined) return;
      const color = isDark(under(value)) ? "#fff" : "#17202b";
      data.push({ value: [x, y, value], label: { color } });
    }));
    const texts = spec.texts.length > 0 && spec.texts[0].some((text) => text !== undefined);
    const small = (width - 90) / spec.x.names.length < 16 + 7.5 * longest(spec);
    const more = { splitLine: { show: false }, splitArea: { show: false }, axisLine: { show: false } };
    const y = axisOf(spec.y, look, false, { ...more, inverse: true });
    y.axisLabel = { ...y.axisLabel, interval: spec.y.names.length <= 30 ? 0 : "auto", width: 130, overflow: "truncate" };
    const x = axisOf(spec.x, look, true, more);
    x.axisLabel.interval = spec.x.names.length <= 10 ? 0 : "auto";
    const about = ({ value: [x, y, value] }) => {
      const text = texts && spec.texts[y][x] ? spec.texts[y][x] : write(value, spec.value.unit);
      return tip(`${spec.y.name} ${spec.y.names[y]}, ${spec.x.name} ${spec.x.names[x]}`, [[undefined, spec.value.name, text]]);
    };
    return {
      grid: { ...GRID, bottom: 44 },
      xAxis: x, yAxis: y,
      visualMap: {
        type: "continuous", min: low, max: high, calculable: false, orient: "horizontal", left: "center",
        bottom: 0, itemWidth: 10, itemHeight: 150, textStyle: textStyle(look), inRange: { color: ramp },
        text: [write(high, spec.value.unit), write(low, spec.value.unit)], seriesIndex: 0, hoverLink: false,
      },
      series: [{
        type: "heatmap", data, itemStyle: { borderColor: look.card, borderWidth: data.length > 400 ? 0 : 2 },
        label: {
          show: texts, fontFamily: FONT, fontSize: small ? 10 : 12.5,
          formatter: ({ value: [x, y] }) => spec.texts[y][x] ?? "",
        },
        emphasis: { itemStyle: { borderColor: look.ink } },
      }],
      tooltip: tooltip(look, "item", about),
    };
  };

  const boxes = (spec, look) => {
    const names = spec.boxes.map((box) => box.label);
    const words = ["smallest", "lower quartile", "median", "upper quartile", "largest"];
    const about = ({ dataIndex }) => {
      const box = spec.boxes[dataIndex];
      return tip(box.label, words.map((word, i) => [undefined, word, write(box.ends[i], spec.y.unit)]).reverse());
    };
    const x = axisOf({ name: "", title: "", names }, look, true);
    x.axisLabel = { ...x.axisLabel, interval: 0, width: 96, overflow: "break" };
    return {
      grid: GRID,
      xAxis: x, yAxis: axisOf(spec.y, look, false, { scale: true }),
      series: [{
        type: "boxplot", boxWidth: [14, 56],
        data: spec.boxes.map((box) => ({
          value: box.ends,
          itemStyle: { color: `color-mix(in srgb, ${look.tones[box.tone]} 22%, ${look.card})`, borderColor: look.tones[box.tone], borderWidth: 2 },
        })),
      }],
      tooltip: tooltip(look, "item", about),
    };
  };

  const squares = (spec, look) => {
    const data = (table) => table.flatMap((row, x) => row.map((number, y) => [x, y, number]).filter((one) => one[2]));
    const layer = (table, color, z) => ({
      type: "custom", data: data(table), z, clip: false, silent: true,
      renderItem: (params, api) => {
        const [x, y] = api.coord([api.value(0), api.value(1)]);
        const most = 0.94 * Math.min(...api.size([1, 1]));
        const side = Math.max(1.2, most * Math.sqrt(Math.min(1, api.value(2) / spec.full)));
        return { type: "rect", shape: { x: x - side / 2, y: y - side / 2, width: side, height: side }, style: { fill: color } };
      },
    });
    const about = (given) => {
      const client = given[0].dataIndex, row = spec.total[client];
      const order = [...row.keys()].filter((i) => row[i]).sort((a, b) => row[b] - row[a]).slice(0, 12);
      const add = (list) => list.reduce((sum, value) => sum + value, 0);
      const rows = order.map((i) => [undefined, spec.classes[i], `${row[i]}, ${spec.labeled[client][i]} labeled`]);
      rows.unshift([undefined, "all", `${write(add(row), "count")}, ${write(add(spec.labeled[client]), "count")} labeled`]);
      return tip(`client ${spec.clients[client]}`, rows);
    };
    const quiet = { splitLine: { show: true, lineStyle: { color: look.faint } }, axisLine: { show: false } };
    const y = axisOf({ name: "", title: "", names: spec.classes }, look, false, { ...quiet, inverse: true });
    y.axisLabel = { ...y.axisLabel, interval: spec.classes.length <= 40 ? 0 : "auto", width: 84, overflow: "truncate" };
    return {
      grid: GRID,
      xAxis: axisOf({ name: "client", title: "client", names: spec.clients }, look, true, { axisLine: { show: false } }),
      yAxis: y,
      series: [
        layer(spec.total, look.tones[0], 2), layer(spec.labeled, look.tones[1], 3),
        { type: "bar", data: spec.clients.map(() => 0), z: 0 }, // carries the pointer's column
      ],
      tooltip: { ...tooltip(look, "axis", about), axisPointer: { type: "shadow" } },
    };
  };

  const DRAW = { lines, bars, heatmap, boxes, squares };
  const optionOf = (spec, look, bare, width) => ({
    animation: false, backgroundColor: "transparent", textStyle: { fontFamily: FONT },
    aria: { enabled: false }, ...DRAW[spec.kind](spec, look, bare, width),
  });
  const heightOf = (spec, bare) => {
    if (bare) return 68;
    if (spec.kind === "heatmap") return Math.min(900, 100 + Math.max(90, spec.y.names.length * (spec.texts.length ? 42 : 24)));
    if (spec.kind === "squares") return 50 + Math.min(640, Math.max(120, spec.classes.length * (spec.clients.length > 30 ? 24 : 34)));
    return 290;
  };
  const widthOf = (spec) => { // less than that is not readable: the box scrolls
    if (spec.kind === "squares") return 110 + 9 * spec.clients.length;
    if (spec.kind === "heatmap" && spec.texts.length) return 60 + (8 + 6 * longest(spec)) * spec.x.names.length;
    return 0;
  };
  const longest = (spec) => Math.max(0, ...spec.texts.flat().map((text) => text?.length ?? 0));
  const itemsOf = (spec) => {
    if (spec.kind === "lines") return spec.lines.map((one) => [one.label, one.tone, one.method, lastOf(one, spec)]);
    if (spec.kind === "bars") {
      const items = spec.bars.map((one) => [one.label, one.tone, one.method]);
      return spec.total ? [...items, [spec.total_label, -1]] : items;
    }
    if (spec.kind === "squares") return [["labeled", 1], ["unlabeled", 0]];
    return [];
  };
  const lastOf = (line, spec) => {
    if (spec.x.names || spec.x.unit === "percent") return ""; // the last place is no newest value
    const known = line.y.filter((value) => value !== null);
    return known.length ? write(known[known.length - 1], spec.y.unit) : "";
  };
  const NOTHING = { lines: "lines", bars: "bars", boxes: "boxes" };
  const isEmpty = (spec) => spec === null || (spec.kind in NOTHING && !spec[NOTHING[spec.kind]].length)
    || (spec.kind === "heatmap" && !spec.values.flat().some((value) => value !== null && value !== undefined));

  // ---- one chart in the page -------------------------------------------------------------------
  class Chart {
    constructor(box) {
      this.box = box;
      this.bare = box.classList.contains("spark");
      this.spec = JSON.parse(box.querySelector("script").textContent);
      this.hidden = new Set();
      this.legend = element("ul");
      this.legend.className = "legend";
      this.plot = element("div");
      this.plot.className = "plot";
      this.plot.setAttribute("role", "img");
      this.name = element("p");
      this.name.className = "axis";
      const scroll = element("div", undefined, [this.plot]);
      scroll.className = "scroll";
      this.empty = element("p", "There is no run at this setting.");
      this.empty.className = "note";
      box.append(this.legend, this.name, scroll, this.empty);
      if (!this.bare) box.append(this.tools());
      const first = chosen(this.spec); // its room is kept before it is drawn: nothing jumps
      if (first) this.plot.style.height = `${heightOf(first, this.bare)}px`;
    }

    tools() {
      const title = this.box.closest("figure")?.querySelector("h3")?.textContent ?? "chart";
      const name = title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
      const made = [
        ["PNG", "image", () => png(this, title).then((url) => save(url, `${name}.png`))],
        ["SVG", "image", () => save(address(svg(this, title), "image/svg+xml"), `${name}.svg`)],
        ["CSV", "numbers", () => save(address(csv(rowsOf(this.current)), "text/csv"), `${name}.csv`)],
      ].map(([kind, what, act]) => {
        const button = element("button", kind);
        button.type = "button";
        button.title = `Save as ${kind}`;
        button.setAttribute("aria-label", `Save the ${what} of “${title}” as ${kind}`);
        button.addEventListener("click", act);
        return button;
      });
      const bar = element("div", undefined, made);
      bar.className = "tools";
      return bar;
    }

    draw() {
      const whole = chosen(this.spec);
      this.current = whole && shown(whole, this.hidden);
      const none = isEmpty(this.current);
      this.empty.hidden = !none || this.bare;
      this.plot.hidden = none;
      this.name.textContent = none || this.bare ? "" : this.current.y?.title ?? "";
      this.write(whole);
      if (none) return;
      const look = palette();
      this.plot.style.height = `${heightOf(this.current, this.bare)}px`;
      this.plot.style.minWidth = `${widthOf(this.current)}px`;
      this.plot.setAttribute("aria-label", this.current.says);
      this.drawing ??= echarts.init(this.plot, null, { renderer: "svg" });
      this.drawing.resize();
      this.drawing.setOption(optionOf(this.current, look, this.bare, this.plot.clientWidth), true);
      const picture = this.plot.querySelector("svg"); // so that paper can scale it
      picture.setAttribute("viewBox", `0 0 ${this.drawing.getWidth()} ${this.drawing.getHeight()}`);
      this.box.dataset.drawn = this.current.kind;
    }

    write(whole) {
      if (this.bare) return;
      const items = whole ? itemsOf(whole).filter((item) => !state.off.has(item[2])) : [];
      const single = items.length === 1 && !items[0][3] && whole.kind !== "squares";
      this.legend.replaceChildren(...(single ? [] : items.map((item) => this.item(whole, item))));
    }

    item(whole, [label, tone, , last]) {
      const swatch = element("i");
      swatch.className = `swatch ${whole.kind === "lines" ? "stroke" : "box"} ${tone < 0 ? "total" : `tone-${tone}`}`;
      const parts = [swatch, element("span", label), ...(last ? [element("b", last)] : [])];
      const fixedItem = tone < 0 || whole.kind === "squares";
      const inner = element(fixedItem ? "span" : "button", undefined, parts);
      if (!fixedItem) {
        inner.type = "button";
        inner.setAttribute("aria-pressed", String(!this.hidden.has(label)));
        inner.title = "Show or hide";
        inner.addEventListener("click", () => {
          if (!this.hidden.delete(label)) this.hidden.add(label);
          this.draw();
          [...this.legend.querySelectorAll("button")].find((one) => one.textContent.startsWith(label))?.focus();
        });
      }
      return element("li", undefined, [inner]);
    }
  }

  // ---- files ---------------------------------------------------------------------------------
  const address = (text, type) => URL.createObjectURL(new Blob([text], { type }));
  const save = (url, name) => {
    const link = element("a");
    link.href = url;
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  };
  const svg = (chart, title) => {
    const spec = chart.current, look = palette("light");
    const width = Math.max(760, 1.4 * widthOf(spec));
    const drawing = echarts.init(null, null, { renderer: "svg", ssr: true, width, height: heightOf(spec) + 110 });
    const option = optionOf(spec, look, false, width);
    option.backgroundColor = "#ffffff";
    option.title = {
      text: title, subtext: spec.y?.title, left: 16, top: 12, itemGap: 34, subtextStyle: textStyle(look),
      textStyle: { color: look.ink, fontFamily: FONT, fontSize: 16 },
    };
    option.grid = { ...option.grid, left: 16, right: 24, top: 96, bottom: option.grid.bottom + 12 };
    if (spec.kind === "lines" || spec.kind === "bars") {
      const data = itemsOf(spec).filter(([, tone]) => tone >= 0).map(([name]) => name);
      option.legend = { data, left: 12, top: 40, textStyle: textStyle(look) };
    }
    drawing.setOption(option);
    const text = drawing.renderToSVGString();
    drawing.dispose();
    return text;
  };
  const png = async (chart, title) => {
    const image = new Image();
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg(chart, title))}`;
    await image.decode();
    const canvas = element("canvas");
    [canvas.width, canvas.height] = [2 * image.naturalWidth, 2 * image.naturalHeight];
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL("image/png");
  };
  const rowsOf = (spec) => {
    if (spec.kind === "lines") {
      const x = (value) => spec.x.names ? spec.x.names[value] : value;
      const rows = spec.lines.flatMap((line) => line.x.map((value, i) => [line.label, x(value), line.y[i], line.low?.[i], line.high?.[i]]));
      return [["series", spec.x.title, spec.y.title, "low", "high"], ...rows];
    }
    if (spec.kind === "bars") {
      const rows = spec.x.names.map((name, i) => [name, ...spec.bars.map((bar) => bar.values[i]), spec.total?.[i]]);
      return [[spec.x.title, ...spec.bars.map((bar) => bar.label), spec.total ? spec.total_label : undefined], ...rows];
    }
    if (spec.kind === "heatmap") return [[`${spec.y.title} / ${spec.x.title}`, ...spec.x.names], ...spec.y.names.map((name, i) => [name, ...spec.values[i]])];
    if (spec.kind === "boxes") return [["", "min", "q1", "median", "q3", "max"], ...spec.boxes.map((box) => [box.label, ...box.ends])];
    const rows = spec.clients.flatMap((client, c) => spec.classes.map((name, k) => [client, name, spec.total[c][k], spec.labeled[c][k]]));
    return [["client", "class", "samples", "labeled"], ...rows];
  };
  const csv = (rows) => rows.map((row) => row.map((value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }).join(",")).join("\r\n") + "\r\n";

  // ---- the page ------------------------------------------------------------------------------
  const drawAll = () => { for (const chart of charts) if (chart.seen) chart.draw(); };
  const filters = document.getElementById("filters");
  const filter = () => {
    const boxes = [...filters.querySelectorAll("input[name=method]")];
    state.off = new Set(boxes.filter((box) => !box.checked).map((box) => box.value));
    state.levels = [...filters.querySelectorAll("select")].map((select) => select.value);
    for (const one of document.querySelectorAll("[data-method]")) one.hidden = state.off.has(one.dataset.method);
    drawAll();
  };
  const themes = document.getElementById("theme");
  const theme = (name) => {
    if (name === "system") delete root.dataset.theme; else root.dataset.theme = name;
    drawAll();
  };

  if (filters) {
    filters.addEventListener("change", filter);
    filters.addEventListener("reset", () => setTimeout(filter));
    filters.addEventListener("submit", (event) => event.preventDefault());
  }
  themes?.addEventListener("change", () => theme(themes.value));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);

  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const chart = charts.find((one) => one.box === entry.target);
      if (!entry.isIntersecting || chart.seen) continue;
      chart.seen = true;
      chart.draw();
    }
  }, { rootMargin: "800px" });
  const sizing = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const chart = charts.find((one) => one.box === target);
      if (chart.seen && chart.drawing && !chart.plot.hidden && chart.drawing.getWidth() !== chart.plot.clientWidth) chart.draw();
    }
  });
  if (filters) filter();
  for (const box of document.querySelectorAll(".chart")) {
    const chart = new Chart(box);
    charts.push(chart);
    near.observe(box);
    sizing.observe(box);
  }
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
    root.dataset.print = "";
    for (const chart of charts) { chart.seen = true; chart.draw(); }
  });
  addEventListener("afterprint", () => { delete root.dataset.print; drawAll(); });
})();
