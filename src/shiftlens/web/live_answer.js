// One column of the live page: what the model says of the shifted image, with one padding.
//
//   const told = ShiftlensAnswer.decode(buffer);    // the server's message; see explorer/readings.py
//   const column = ShiftlensAnswer.create(root, figure, { task, size, paint });
//   column.show(told, told.columns[k], layer);      // root's dataset has dx, dy, padding, predicted, probability, logit
//   ShiftlensAnswer.colour(k)                       // of class k
"use strict";

/** @typedef {{number: number, name: string, probability: number, logit: number | null}} Score */
/**
 * @typedef {object} Column
 * @property {string} padding
 * @property {Score[]} classes
 * @property {Score | null} unshifted
 * @property {string | null} [label]
 * @property {number | null} [loss]
 * @property {number | null} [kept] of a segmenter: share of the pixels in view whose class moved with the image
 * @property {number[][]} [boxes] of a detector: left, top, right, bottom, score, class
 * @property {number} [n_unshifted] of a detector
 * @property {[number, number] | null} mask
 * @property {[number, number] | null} maps
 * @property {number} n_filters
 * @property {Uint8Array | null} maskCells
 * @property {Uint8Array | null} mapCells
 */
/** @typedef {{dx: number, dy: number, low: number, high: number, columns: Column[]}} Told */
/** @typedef {(canvas: HTMLCanvasElement, dx: number, dy: number) => void} Paint draws the image that has moved */

const ShiftlensAnswer = (() => {
  // Okabe and Ito's colours, safe for colour-blind readers, then others for nets of more classes.
  const COLOURS = ["#999999", "#56b4e9", "#e69f00", "#cc79a7", "#009e73", "#f0e442", "#d55e00", "#0072b2"].concat(
    ["#b07aa1", "#86bc6b", "#ff9da7", "#9c755f", "#76e0d6", "#c8b6ff", "#e15759", "#bab0ac"],
  );
  const OPACITY = 150;
  /** @type {Record<string, string>} */
  const LISTED = {
    classification: "Class, probability, logit.",
    segmentation: "Class, share of the image. Class 0 is not coloured.",
    detection: "The best five detections and their scores.",
  };

  /** @type {(k: number) => string} */
  const colour = (k) => COLOURS[k % COLOURS.length];
  /** @type {(share: number) => string} */
  const percent = (share) => `${(100 * share).toFixed(1)} %`;

  // Four bytes as they lie in an image's data.
  /** @type {(r: number, g: number, b: number, a: number) => number} */
  const pixel = (r, g, b, a) => new Uint32Array(new Uint8Array([r, g, b, a]).buffer)[0];

  /** @type {(hex: string) => number[]} */
  const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

  const MASK = new Uint32Array(256).map((_, k) => {
    const [r, g, b] = rgb(colour(k));
    return k ? pixel(r, g, b, OPACITY) : 0;
  });

  // Viridis by nine of its colours, from 1 to 255; 0 is a gap between two maps, which stays transparent.
  const VIRIDIS = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"].map(rgb);
  const MAPS = new Uint32Array(256).map((_, k) => {
    const place = (Math.max(0, k - 1) / 254) * (VIRIDIS.length - 1);
    const from = Math.min(Math.floor(place), VIRIDIS.length - 2);
    const [r, g, b] = VIRIDIS[from].map((value, channel) => Math.round(value + (place - from) * (VIRIDIS[from + 1][channel] - value)));
    return k ? pixel(r, g, b, 255) : 0;
  });

  /** @type {(buffer: ArrayBuffer) => Told} */
  function decode(buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    const told = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    let at = 4 + length;
    /** @type {(shape: [number, number] | null) => Uint8Array | null} */
    const take = (shape) => {
      if (!shape) {
        return null;
      }
      const cells = new Uint8Array(buffer, at, shape[0] * shape[1]);
      at += cells.length;
      return cells;
    };
    for (const column of told.columns) {
      column.maskCells = take(column.mask);
      column.mapCells = take(column.maps);
    }
    return told;
  }

  // Cells as pixels of the canvas, each coloured by a table.
  /** @type {(canvas: HTMLCanvasElement, shape: [number, number], cells: Uint8Array, table: Uint32Array) => void} */
  function spread(canvas, [height, width], cells, table) {
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    const context = canvas.getContext("2d");
    if (context) {
      const drawn = context.createImageData(width, height);
      const pixels = new Uint32Array(drawn.data.buffer);
      for (let k = 0; k < cells.length; k += 1) {
        pixels[k] = table[cells[k]];
      }
      context.putImageData(drawn, 0, 0);
    }
  }

  /** @type {(canvas: HTMLCanvasElement, boxes: number[][], width: number) => void} */
  function frame(canvas, boxes, width) {
    const context = canvas.getContext("2d");
    const scale = canvas.width / width;
    for (const [left, top, right, bottom, , k] of context ? boxes : []) {
      const box = /** @type {const} */ ([left * scale, top * scale, (right - left) * scale, (bottom - top) * scale]);
      for (const [stroke, thick] of /** @type {const} */ ([["#000000", 5], [colour(k), 3]])) {
        Object.assign(/** @type {object} */ (context), { strokeStyle: stroke, lineWidth: thick });
        context?.strokeRect(...box);
      }
    }
  }

  /**
   * @param {HTMLElement} root
   * @param {HTMLElement} figure of the layer's maps
   * @param {{task: string, size: [number, number], paint: Paint}} given
   */
  function create(root, figure, { task, size, paint }) {
    /** @type {<T extends Element>(from: Element, selector: string) => T} */
    const at = (from, selector) => /** @type {any} */ (from.querySelector(selector));
    const seen = /** @type {HTMLCanvasElement} */ (at(root, ".seen"));
    const sheet = /** @type {HTMLCanvasElement} */ (at(figure, "canvas"));
    const list = at(root, ".scores");
    const layered = document.createElement("canvas");
    let shownBefore = 0;
    /** @type {{item: HTMLElement, texts: HTMLElement[], bar: HTMLElement, chip: HTMLElement}[]} */
    const rows = [];
    at(root, ".columns").textContent = LISTED[task];

    function addRow() {
      const item = document.createElement("li");
      const texts = [0, 1, 2].map(() => document.createElement("span"));
      const [outer, bar] = [document.createElement("div"), document.createElement("div")];
      const chip = document.createElement("i");
      chip.className = "chip";
      chip.hidden = task === "classification";
      outer.className = "bar";
      outer.append(bar);
      const name = document.createElement("span");
      name.append(chip, texts[0]);
      item.append(name, texts[1], texts[2], outer);
      list.append(item);
      rows.push({ item, texts, bar, chip });
    }

    /** @param {Score[]} classes */
    function fill(classes) {
      while (rows.length < classes.length) {
        addRow();
      }
      rows.forEach(({ item, texts, bar, chip }, k) => {
        const each = classes[k];
        item.hidden = !each;
        if (each) {
          texts[0].textContent = each.name;
          texts[1].textContent = percent(each.probability);
          texts[2].textContent = each.logit === null ? "" : each.logit.toFixed(2);
          bar.style.width = `${100 * each.probability}%`;
          chip.style.background = task === "segmentation" && !each.number ? "transparent" : colour(each.number);
        }
      });
    }

    // What is said first: [in large letters, beside it, below it, whether the answer is another one than unshifted].
    /** @type {(column: Column, moved: boolean) => [string, string, string, boolean]} */
    function headline(column, moved) {
      const best = column.classes[0];
      if (task === "segmentation" && !moved) {
        return ["Not shifted", "", "drag: how many pixels keep their class?", false];
      }
      if (task === "segmentation") {
        const kept = column.kept ?? 1;
        return [percent(kept), "", `of the pixels in view keep the class they had before the shift`, kept < 0.995];
      }
      if (task === "detection") {
        const [n, before] = [column.boxes?.length || 0, column.n_unshifted || 0];
        return [`${n} ${n === 1 ? "object" : "objects"} found`, "", moved ? `unshifted: ${before}` : "", moved && n !== before];
      }
      const first = column.unshifted;
      if (!first || !moved) {
        return [best.name, percent(best.probability), "unshifted", false];
      }
      const changed = first.number !== best.number;
      const was = `${first.name} ${percent(first.probability)}`;
      return [best.name, percent(best.probability), changed ? `flipped: unshifted it was ${was}` : `the same class as unshifted (${percent(first.probability)})`, changed];
    }

    return {
      /** @type {(told: Told, column: Column, layer: string) => string} what a screen reader is told */
      show(told, column, layer) {
        const [large, beside, below, changed] = headline(column, told.dx !== 0 || told.dy !== 0);
        at(root, ".class").textContent = large;
        at(root, ".confidence").textContent = beside;
        at(root, ".judged").textContent = below;
        root.classList.toggle("wrong", changed);
        fill(column.classes);
        if (column.label !== null && column.label !== undefined) {
          at(root, ".columns").textContent = `${LISTED[task]} True class: ${column.label}, loss ${Number(column.loss).toFixed(3)} nats.`;
        } else {
          at(root, ".columns").textContent = LISTED[task];
        }
        const best = column.classes[0];
        Object.assign(root.dataset, {
          dx: told.dx,
          dy: told.dy,
          padding: column.padding,
          predicted: best ? best.number : "",
          probability: best ? best.probability : "",
          logit: best?.logit ?? "",
          answers: (shownBefore += 1),
        });
        seen.hidden = task === "classification";
        if (!seen.hidden) {
          const [height, width] = size;
          const factor = Math.max(1, Math.ceil(256 / width));
          Object.assign(seen, { width: width * factor, height: height * factor });
          paint(seen, told.dx, told.dy);
          if (column.mask && column.maskCells) {
            spread(layered, column.mask, column.maskCells, MASK);
            const context = seen.getContext("2d");
            if (context) {
              context.imageSmoothingEnabled = false;
              context.drawImage(layered, 0, 0, seen.width, seen.height);
            }
          }
          frame(seen, column.boxes || [], width);
          seen.setAttribute("aria-label", `The image with the model's ${column.boxes ? "boxes" : "mask"}: ${large} ${below}`);
        }
        figure.hidden = !layer;
        sheet.hidden = !column.maps;
        at(figure, "figcaption").textContent = `With this padding the net has no layer ${layer}`;
        if (column.maps && column.mapCells) {
          spread(sheet, column.maps, column.mapCells, MAPS);
          const n = Math.min(column.n_filters, 16);
          sheet.setAttribute("aria-label", `Feature maps of layer ${layer}`);
          at(figure, "figcaption").textContent =
            `What ${n < column.n_filters ? `${n} of the ${column.n_filters}` : `the ${n}`} filters of layer ${layer} respond to. Yellow: strongly (${told.high.toFixed(2)}); dark blue: least (${told.low.toFixed(2)})`;
        }
        return `${large} ${beside} ${below}`;
      },
    };
  }

  return { decode, create, colour };
})();
