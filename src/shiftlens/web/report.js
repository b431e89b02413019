// Brings the report to life. Everything that is text goes in as text (textContent), never as markup.
//
// What tests and other scripts may hold on to (N is the number of the sweep, comparison or feature run, from 0):
//
//   html[data-live="yes"]         set when the page comes alive; html[data-ready="yes"] when all of it is drawn
//   #map-sweep-N                  select: which map (a metric by name, probability, agreement, class-K, control-NAME,
//                                 difference-NAME, sides-x, sides-y); #map-comparison-N: against-K
//   #heatmap-sweep-N canvas       the map: click, tap; arrow keys (Shift: 5 cells), Home, Enter or space
//   #readout-sweep-N              the cell under the pointer: its text, and data-dx, data-dy, data-value, data-lo,
//                                 data-hi, data-n (numbers in full; "" where there is none)
//   #scale-sweep-N                colour bar; its range in #scale-low-sweep-N and #scale-high-sweep-N
//   #radius-sweep-N               range: radius in px; #radius-text-sweep-N says what holds within it, with data-radius,
//                                 data-mean, data-every, data-lowest
//   #profile-sweep-N              plotly: mean over rings; #across-sweep-N, #down-sweep-N: through the chosen cell
//   #chosen-sweep-N               the chosen cell in words, data-dx and data-dy
//   #fails-sweep-N                list of images at the chosen cell; li[data-position][data-label][data-predicted]
//   #all-images-sweep-N           checkbox: also the images that are right there
//   #layer-features-N             range: layer; #layer-name-features-N, #empty-filters-features-N (img) and
//                                 #empty-mean-, #average-filters-, #average-mean-features-N
"use strict";

/** @typedef {{dtype: "u1" | "u2" | "u4" | "i4" | "f4", shape: number[], data: string}} PackedArray */
/** @typedef {[number, number]} Interval */
/**
 * One map as reporting/page_maps.py makes it: counts out of n, or means with the ends of their intervals.
 * @typedef {object} PageMap
 * @property {string} id
 * @property {string} group
 * @property {string} label
 * @property {string} about
 * @property {string} unit
 * @property {"count" | "mean"} kind
 * @property {number} n
 * @property {PackedArray} [count]
 * @property {PackedArray} [value]
 * @property {PackedArray} [lo]
 * @property {PackedArray} [hi]
 * @property {PackedArray | null} [marked]
 * @property {number} low
 * @property {number} high
 * @property {string} colours
 * @property {string} short
 * @property {string} [said]
 * @property {string} [missing]
 */
/** @typedef {PageMap & {values: ArrayLike<number>, interval: (k: number) => Interval | null}} OpenedMap */
/** @typedef {{map: string, label: string, radius: number[], value: number[], lo: (number | null)[], hi: number[], ring: PackedArray}} Profile */
/** @typedef {{radius: number[], n_shifts: number[], mean: number[], mean_lo: (number | null)[], mean_hi: number[], every: number[], every_lo: (number | null)[], every_hi: number[]}} Discs */
/** @typedef {{n: number, position: number[], label: number[], class_names: string[], prediction: PackedArray, sprite: Sprite | null}} Gallery */
/**
 * What the page holds of a sweep, or of a comparison (which has maps alone).
 * @typedef {object} SweepData
 * @property {string} name
 * @property {PageMap[]} maps
 * @property {number[]} dys
 * @property {number[]} dxs
 * @property {PackedArray} blank
 * @property {PackedArray | null} region
 * @property {Profile[]} profile
 * @property {Discs} discs
 * @property {string} metric
 * @property {"higher" | "lower"} better
 * @property {Gallery | null} images
 */
/** @typedef {{filters: string, filters_range: string, mean: string, mean_range: string, scores: string}} Shots */
/** @typedef {{layers: {name: string, kind: string, shape: string, empty: Shots, average: Shots | null}[], input: string, average: string}} FeatureData */
/** @typedef {{heatmap: ReturnType<typeof ShiftlensHeatmap.create>, maps: OpenedMap[], current: () => OpenedMap, start: () => void}} Explorer */
/** @typedef {{traces: object[], x: string, y: string, range: number[], markers: number[]}} Drawn */

(() => {
  const Z = 1.959963984540054;
  const page = ShiftlensPage;
  const { Plotly } = /** @type {any} */ (window);
  /** What is on every page, or on those that say so. @type {(id: string) => any} */
  const at = (id) => document.getElementById(id);
  /** @type {(text: string | number) => string} */
  const minus = (text) => String(text).replace("-", "−");
  /** @type {(count: number) => string} */
  const grouped = (count) => String(count).replace(/\B(?=(\d{3})+$)/g, ",");
  /** @type {(value: number) => string} */
  const signed = (value) => (value > 0 ? `+${value}` : minus(value));

  /** @param {string} text */
  function bytes(text) {
    const raw = atob(text);
    const out = new Uint8Array(raw.length);
    for (let k = 0; k < raw.length; k += 1) {
      out[k] = raw.charCodeAt(k);
    }
    return out;
  }

  const TYPES = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, i4: Int32Array, f4: Float32Array };

  /** @type {(packed: PackedArray | null | undefined) => ArrayLike<number> | null} */
  function unpacked(packed) {
    return packed ? new TYPES[packed.dtype](bytes(packed.data).buffer) : null;
  }

  /** @type {Record<string, Uint8Array>} */
  const palettes = Object.fromEntries(
    Object.entries(page.colours).map(([name, text]) => [name, bytes(/** @type {string} */ (text))]),
  );

  // The interval of a share, in per cent: E. B. Wilson, JASA 22 (1927).
  /** @type {(count: number, n: number) => Interval} */
  function wilson(count, n) {
    const p = count / n;
    const zz = Z * Z;
    const middle = (p + zz / (2 * n)) / (1 + zz / n);
    const half = Math.sqrt(zz * ((p * (1 - p)) / n + zz / (4 * n * n))) / (1 + zz / n);
    return [count === 0 ? 0 : 100 * (middle - half), count === n ? 100 : 100 * (middle + half)];
  }

  // A map with its numbers unpacked: value(k), interval(k) of cell k.
  /** @type {(map: PageMap) => OpenedMap} */
  function opened(map) {
    const none = new Float32Array(0);
    if (map.kind === "count") {
      const counts = unpacked(map.count) ?? none;
      const values = Float64Array.from(counts, (count) => (100 * count) / map.n);
      return { ...map, values, interval: (k) => wilson(counts[k], map.n) };
    }
    const values = unpacked(map.value) ?? none;
    const lo = unpacked(map.lo);
    const hi = unpacked(map.hi);
    return { ...map, values, interval: (k) => (lo && hi && Number.isFinite(lo[k]) ? [lo[k], hi[k]] : null) };
  }

  /** @type {(unit: string, value: number) => number} */
  function digits(unit, value) {
    const size = Math.abs(value);
    if (["%", "points", "px"].includes(unit)) {
      return 1;
    }
    if (unit === "nats") {
      return size < 0.1 ? 3 : 2;
    }
    return size ? Math.min(Math.max(0, 2 - Math.floor(Math.log10(size))), 9) : 1;
  }

  /** @type {(value: number, unit: string, n?: number) => string} */
  function number(value, unit, n) {
    const shown = minus(value.toFixed(n === undefined ? digits(unit, value) : n));
    return `${shown} ${unit}`.trim();
  }

  /** @type {(value: number, ends: Interval | null, unit: string) => string} */
  function withInterval(value, ends, unit) {
    if (!Number.isFinite(value)) {
      return "no number here";
    }
    const n = digits(unit, value);
    const text = number(value, unit, n);
    return ends ? `${text} [${minus(ends[0].toFixed(n))}, ${minus(ends[1].toFixed(n))}]` : text;
  }

  /** @type {(name: string) => string} */
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // ---- lines, drawn by plotly.js

  /** @type {(lo: number, hi: number) => Interval} */
  const pair = (lo, hi) => [lo, hi];
  /** @type {(() => void)[]} */
  const drawnLines = [];

  /** @type {(id: string, describe: () => Drawn, onClick?: (x: number) => void) => () => void} */
  function lines(id, describe, onClick) {
    const element = at(id);
    if (!element) {
      return () => {};
    }
    function draw() {
      const { traces, x, y, range, markers } = describe();
      const ink = css("--ink");
      const axis = { color: ink, gridcolor: css("--grid"), zeroline: false, linecolor: ink, ticks: "outside" };
      Plotly.react(
        element,
        traces,
        {
          margin: { l: 52, r: 8, t: 8, b: 42 },
          height: 230,
          paper_bgcolor: "rgba(0,0,0,0)",
          plot_bgcolor: "rgba(0,0,0,0)",
          font: { color: ink, size: 12, family: "system-ui, sans-serif" },
          xaxis: { ...axis, title: { text: x, standoff: 6 } },
          yaxis: { ...axis, title: { text: y, standoff: 4 }, range },
          showlegend: traces.filter((/** @type {any} */ trace) => trace.showlegend).length > 1,
          legend: { x: 1, xanchor: "right", y: 1, bgcolor: "rgba(0,0,0,0)" },
          hovermode: "x",
          shapes: markers.map((value) => ({
            type: "line",
            x0: value,
            x1: value,
            yref: "paper",
            y0: 0,
            y1: 1,
            line: { color: css("--accent"), width: 1.5, dash: "dot" },
          })),
        },
        { displayModeBar: false, responsive: true },
      );
      if (onClick && !element.dataset.clickable) {
        element.dataset.clickable = "yes";
        element.on("plotly_click", (/** @type {any} */ event) => onClick(event.points[0].x));
      }
    }
    drawnLines.push(draw);
    let asked = false;
    return () => {
      // One action asks for the same lines several times: they are drawn once, when it is over.
      if (!asked) {
        asked = true;
        queueMicrotask(() => {
          asked = false;
          draw();
        });
      }
    };
  }

  /** @type {[null, null]} */
  const NO_ENDS = [null, null];
  const LINES = ["--line-1", "--line-2"];

  /** @type {(name: string, x: number[], y: (number | null)[], ends: (Interval | [null, null])[] | null, place: number, unit: string) => object[]} */
  function line(name, x, y, ends, place, unit) {
    const colour = css(LINES[place]);
    const traces = [];
    if (ends) {
      const band = { x, mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false };
      traces.push({ ...band, y: ends.map((each) => each[0]) });
      traces.push({ ...band, y: ends.map((each) => each[1]), fill: "tonexty", fillcolor: `${colour}40` });
    }
    // Names are data: plotly would read tags in them.
    const safe = name.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
    traces.push({
      x,
      y,
      name: safe,
      mode: "lines+markers",
      marker: { size: 4, symbol: place ? "square" : "circle" },
      line: { color: colour, width: 2, dash: place ? "dash" : "solid" },
      text: y.map((value, k) => withInterval(value === null ? NaN : value, known(ends && ends[k]), unit)),
      hovertemplate: "%{text}<extra></extra>",
      showlegend: true,
    });
    return traces;
  }

  /** @type {(ends: Interval | [null, null] | null) => Interval | null} */
  const known = (ends) => (ends && ends[0] !== null ? ends : null);

  /** @param {PageMap} map */
  function axisTitle(map) {
    return map.unit ? `${map.short}, ${map.unit}` : map.short;
  }

  // ---- one map with its controls: a sweep's, or a comparison's

  /** @type {(name: string, data: SweepData, extras: {onChoose?: (cell: Cell) => void, onShow?: (map: OpenedMap) => void}) => Explorer} */
  function explorer(name, data, extras) {
    const maps = data.maps.map(opened);
    const { dys, dxs } = data;
    const nx = dxs.length;
    const blank = unpacked(data.blank);
    const region = unpacked(data.region);
    const readout = at(`readout-${name}`);
    const select = at(`map-${name}`);
    let current = maps[0];
    let chosen = { row: dys.indexOf(0), column: dxs.indexOf(0) };

    /** @param {Cell | null} cell */
    function tell(cell) {
      const { row, column } = cell || chosen;
      const k = row * nx + column;
      const value = current.values[k];
      const ends = Number.isFinite(value) ? current.interval(k) : null;
      const place = `dx ${signed(dxs[column])}, dy ${signed(dys[row])} px: `;
      const nothing = blank && blank[k] ? " (nothing of the image is left here)" : "";
      readout.textContent = Number.isFinite(value)
        ? `${place}${current.said || current.label} ${withInterval(value, ends, current.unit)}, n = ${grouped(current.n)}${nothing}`
        : `${place}no number here${current.missing ? `: ${current.missing}` : ""}`;
      Object.assign(readout.dataset, {
        dx: dxs[column],
        dy: dys[row],
        map: current.id,
        value: Number.isFinite(value) ? value : "",
        lo: ends ? ends[0] : "",
        hi: ends ? ends[1] : "",
        n: current.n,
      });
    }

    const heatmap = ShiftlensHeatmap.create(
      at(`heatmap-${name}`),
      {
        dys,
        dxs,
        label:
          `Heat map of ${data.name} over shifts. Arrow keys move by a cell, with Shift by five, Home to (0, 0); ` +
          "Enter chooses a cell. A table of the same numbers follows.",
      },
      {
        onHover: tell,
        onSelect: (cell) => choose(cell),
      },
    );

    const across = lines(
      `across-${name}`,
      () => section(dxs, (column) => chosen.row * nx + column, dxs[chosen.column], "dx (px): image moved right"),
      (dx) => choose({ ...chosen, column: dxs.indexOf(dx) }),
    );
    const down = lines(
      `down-${name}`,
      () => section(dys, (row) => row * nx + chosen.column, dys[chosen.row], "dy (px): image moved down"),
      (dy) => choose({ ...chosen, row: dys.indexOf(dy) }),
    );

    /** @type {(axis: number[], cell: (k: number) => number, marker: number, x: string) => Drawn} */
    function section(axis, cell, marker, x) {
      const y = axis.map((_, k) => (Number.isFinite(current.values[cell(k)]) ? current.values[cell(k)] : null));
      const found = axis.map((_, k) => current.interval(cell(k)));
      const ends = found.some(Boolean) ? found.map((each) => each || NO_ENDS) : null;
      return {
        traces: line(current.label, axis, y, ends, 0, current.unit),
        x,
        y: axisTitle(current),
        range: room(current),
        markers: [marker],
      };
    }

    /** @param {Cell} cell */
    function choose(cell) {
      if (cell.row < 0 || cell.column < 0) {
        return;
      }
      chosen = cell;
      heatmap.select(cell);
      const words = at(`chosen-${name}`);
      // It stands above the images, where there are any.
      if (words) {
        words.textContent = `dx ${signed(dxs[cell.column])}, dy ${signed(dys[cell.row])} px`;
        words.dataset.dx = dxs[cell.column];
        words.dataset.dy = dys[cell.row];
      }
      tell(cell);
      across();
      down();
      if (extras.onChoose) {
        extras.onChoose(cell);
      }
    }

    /** @param {OpenedMap} map */
    function show(map) {
      current = map;
      const palette = palettes[map.colours];
      heatmap.show({
        values: map.values,
        low: map.low,
        high: map.high,
        palette,
        outline: map.group === "Differences" ? null : region,
        marked: unpacked(map.marked),
      });
      scale(map, palette);
      at(`about-${name}`).textContent = map.about;
      tell(null);
      across();
      down();
      if (extras.onShow) {
        extras.onShow(map);
      }
    }

    /** @type {(map: OpenedMap, palette: Uint8Array) => void} */
    function scale(map, palette) {
      const canvas = at(`scale-${name}`);
      const context = canvas.getContext("2d");
      const image = context.createImageData(256, 1);
      for (let k = 0; k < 256; k += 1) {
        image.data.set([palette[3 * k], palette[3 * k + 1], palette[3 * k + 2], 255], 4 * k);
      }
      context.putImageData(image, 0, 0);
      at(`scale-low-${name}`).textContent = number(map.low, map.unit);
      at(`scale-high-${name}`).textContent = number(map.high, map.unit);
    }

    select.addEventListener("change", () => show(maps.find((map) => map.id === select.value) || maps[0]));
    return {
      heatmap,
      maps,
      current: () => current,
      start() {
        const wanted = maps.find((map) => map.id === select.value);
        show(wanted || maps[0]);
        choose(chosen);
      },
    };
  }

  /** @param {PageMap} map */
  function room(map) {
    const span = map.high - map.low;
    return [map.low - 0.03 * span, map.high + 0.03 * span];
  }

  // ---- a sweep

  /** @type {(data: SweepData, n: number) => Explorer} */
  function sweep(data, n) {
    const name = `sweep-${n}`;
    const nx = data.dxs.length;
    const slider = at(`radius-${name}`);
    const gallery = data.images ? images(name, data, data.images) : () => {};
    let drawProfile = () => {};

    const made = explorer(name, data, {
      onChoose: (cell) => gallery(cell),
      onShow: () => drawProfile(),
    });

    const ring = data.profile.length ? unpacked(data.profile[0].ring) : null;

    /** @param {OpenedMap} map */
    function ringMeans(map) {
      const sums = data.profile[0].radius.map(() => [0, 0]);
      Array.from(map.values).forEach((value, k) => {
        if (ring && ring[k] && Number.isFinite(value)) {
          sums[ring[k] - 1][0] += value;
          sums[ring[k] - 1][1] += 1;
        }
      });
      return sums.map(([sum, count]) => (count ? sum / count : null));
    }

    if (slider) {
      drawProfile = lines(
        `profile-${name}`,
        () => {
          const map = made.current();
          const stored = data.profile.filter((each) => each.map === map.id);
          const traces = stored.length
            ? stored.flatMap((each, place) => {
                const ends = each.lo.map((lo, k) => (lo === null ? NO_ENDS : pair(lo, each.hi[k])));
                return line(each.label, each.radius, each.value, each.lo[0] === null ? null : ends, place, map.unit);
              })
            : line(map.label, data.profile[0].radius, ringMeans(map), null, 0, map.unit);
          const x = "length of the shift (px)";
          return { traces, x, y: axisTitle(map), range: room(map), markers: [Number(slider.value)] };
        },
        (radius) => {
          slider.value = radius;
          within();
        },
      );
      slider.addEventListener("input", within);
    }

    function within() {
      const radius = Number(slider.value);
      const discs = data.discs;
      const k = discs.radius.findIndex((each) => each >= radius);
      const shown = made.maps[0];
      const factor = shown.unit === "%" ? 100 : 1;
      /** @type {(value: number, lo: number | null, hi: number) => string} */
      const said = (value, lo, hi) =>
        withInterval(factor * value, lo === null ? null : [factor * lo, factor * hi], shown.unit);
      const worse = (/** @type {number} */ a, /** @type {number} */ b) => (data.better === "lower" ? a > b : a < b);
      const worst = { value: NaN, dx: 0, dy: 0 };
      const blank = unpacked(data.blank);
      data.dys.forEach((dy, row) => {
        data.dxs.forEach((dx, column) => {
          const value = shown.values[row * nx + column];
          const counted = Math.hypot(dx, dy) <= radius && !(blank && blank[row * nx + column]) && Number.isFinite(value);
          if (counted && (Number.isNaN(worst.value) || worse(value, worst.value))) {
            Object.assign(worst, { value, dx, dy });
          }
        });
      });
      const text = at(`radius-text-${name}`);
      text.textContent =
        `Within ${radius} px (${grouped(discs.n_shifts[k])} ${discs.n_shifts[k] === 1 ? "shift" : "shifts"}): ${data.metric} averages ` +
        `${said(discs.mean[k], discs.mean_lo[k], discs.mean_hi[k])}; at each image's worst of them, it is ` +
        `${said(discs.every[k], discs.every_lo[k], discs.every_hi[k])}` +
        (Number.isNaN(worst.value)
          ? "."
          : `; the ${data.better === "lower" ? "highest" : "lowest"} mean is ${number(worst.value, shown.unit)} ` +
            `at dx ${signed(worst.dx)}, dy ${signed(worst.dy)}.`);
      Object.assign(text.dataset, {
        radius,
        mean: discs.mean[k],
        every: discs.every[k],
        lowest: Number.isNaN(worst.value) ? "" : worst.value / factor,
      });
      at(`radius-value-${name}`).textContent = `${radius} px`;
      made.heatmap.circle(radius > 0 ? radius : null);
      drawProfile();
    }

    made.start();
    if (slider) {
      within();
    }
    return made;
  }

  // ---- the images behind a cell

  /** @type {(name: string, data: SweepData, images: Gallery) => (cell: Cell) => void} */
  function images(name, data, images) {
    const list = at(`fails-${name}`);
    const said = at(`fails-text-${name}`);
    const box = at(`all-images-${name}`);
    const prediction = unpacked(images.prediction) ?? [];
    const nCells = data.dys.length * data.dxs.length;
    const nx = data.dxs.length;
    /** @type {Cell | null} */
    let last = null;
    const { sprite } = images;
    const picture = sprite && ShiftlensPicture.of(sprite, () => last && show(last));

    /** @type {(canvas: HTMLCanvasElement, place: number, dx: number, dy: number) => void} */
    function thumbnail(canvas, place, dx, dy) {
      if (!sprite || !picture) {
        return;
      }
      [canvas.height, canvas.width] = sprite.size;
      canvas.className = "thumbnail";
      canvas.setAttribute("aria-hidden", "true");
      picture.draw(canvas, place, dx, dy);
    }

    /** @param {Cell} cell */
    function show(cell) {
      last = cell;
      const at = cell.row * nx + cell.column;
      const dx = data.dxs[cell.column];
      const dy = data.dys[cell.row];
      const items = [];
      let wrong = 0;
      for (let k = 0; k < images.n; k += 1) {
        const predicted = prediction[k * nCells + at];
        const label = images.label[k];
        const fails = predicted !== label;
        wrong += fails ? 1 : 0;
        if (!fails && !box.checked) {
          continue;
        }
        const item = document.createElement("li");
        item.dataset.position = String(images.position[k]);
        item.dataset.label = String(label);
        item.dataset.predicted = String(predicted);
        item.className = fails ? "fails" : "right";
        if (images.sprite) {
          const canvas = document.createElement("canvas");
          thumbnail(canvas, k, dx, dy);
          item.append(canvas);
        }
        const text = document.createElement("span");
        const names = images.class_names;
        const called = (/** @type {number} */ which) => (which < names.length ? names[which] : String(which));
        text.textContent = fails
          ? `${called(label)}, taken for ${called(predicted)}`
          : `${called(label)}, right`;
        const where = document.createElement("small");
        where.textContent = ` image ${images.position[k]}`;
        item.append(text, where);
        items.push(item);
      }
      list.replaceChildren(...items);
      said.textContent = `${wrong} of the ${images.n} images fail at dx ${signed(dx)}, dy ${signed(dy)} px.`;
      said.dataset.wrong = wrong;
    }

    box.addEventListener("change", () => last && show(last));
    return show;
  }

  // ---- feature maps

  /** @type {(data: FeatureData, n: number) => void} */
  function features(data, n) {
    const name = `features-${n}`;
    const slider = at(`layer-${name}`);
    const put = (/** @type {string} */ which, /** @type {Shots} */ shown) => {
      for (const what of /** @type {const} */ (["filters", "mean"])) {
        const picture = at(`${which}-${what}-${name}`);
        picture.src = shown[what];
        at(`${which}-${what}-range-${name}`).textContent = shown[`${what}_range`];
      }
      at(`${which}-scores-${name}`).textContent = shown.scores;
    };
    function show() {
      const layer = data.layers[Number(slider.value)];
      const text = `${layer.name} (${layer.kind}), ${layer.shape}`;
      at(`layer-name-${name}`).textContent = text;
      slider.setAttribute("aria-valuetext", text);
      put("empty", layer.empty);
      at(`empty-filters-${name}`).alt = `Filters of ${layer.name}: ${data.input}`;
      at(`empty-mean-${name}`).alt = `Mean over the filters of ${layer.name}: ${data.input}`;
      if (layer.average) {
        put("average", layer.average);
        at(`average-filters-${name}`).alt = `Filters of ${layer.name}: ${data.average}`;
        at(`average-mean-${name}`).alt = `Mean over the filters of ${layer.name}: ${data.average}`;
      }
    }
    slider.addEventListener("input", show);
    show();
  }

  // ---- the page

  document.documentElement.dataset.live = "yes";
  /** @type {Explorer[]} */
  const explorers = [
    ...page.sweeps.map(sweep),
    ...page.comparisons.flatMap((/** @type {SweepData} */ data, /** @type {number} */ n) => {
      if (!data.maps.length) {
        return []; // of a file without maps
      }
      const made = explorer(`comparison-${n}`, data, {});
      made.start();
      return made;
    }),
  ];
  page.features.forEach(features);

  function redrawAll() {
    explorers.forEach((each) => each.heatmap.redraw());
    drawnLines.forEach((draw) => draw());
  }
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
  queueMicrotask(() => {
    document.documentElement.dataset.ready = "yes";
  });
})();
