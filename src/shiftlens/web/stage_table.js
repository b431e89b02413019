// What a sweep stored for the images of the stage, unpacked: look-ups and what follows from them. Nothing is drawn here.
//
//   const table = await ShiftlensTable.opened(data);     // data: what reporting/stage_part.py puts into the page
//   table.at(model, image, cell)                         // { predicted, confidence, loss }, as displayed
//   table.flips(model, image)                            // how soon and how often the predicted class changes
//   table.value(model, image, cell), table.range(model, image)     // of masks and boxes: a metric in per cent
//   ShiftlensTable.way(from, to)                         // the cells between two cells
//   ShiftlensTable.linkOf({ image, dx, dy }), ShiftlensTable.linked(hash)
//
// A cell is { row, column } of the grid of shifts.
"use strict";

/** @typedef {{shape: number[], axes: number, planes: number, deflate: string}} Deflated */
/** @typedef {{predicted: number, confidence: number, loss: number | null}} Said */
/** @typedef {{share: number, nearest: Cell | null, length: number}} Flips */
/**
 * @typedef {object} StageData
 * @property {number[]} dys
 * @property {number[]} dxs
 * @property {[number, number]} half largest |dy| and |dx| that leave half of the image in view
 * @property {number[]} position
 * @property {number[] | null} label
 * @property {string[]} class_names
 * @property {{name: string, images: number[]}[]} groups
 * @property {Sprite} sprite
 * @property {"classes" | "boxes" | "masks"} kind
 * @property {StageModel[]} models
 */
/**
 * What is there depends on the kind: predictions, or a metric with what was kept of each image.
 * @typedef {object} StageModel
 * @property {string} name
 * @property {Deflated} [prediction]
 * @property {Deflated} [confidence]
 * @property {Deflated | null} [loss]
 * @property {number} [median_share]
 * @property {{called: string, title: string, about: string}} [metric]
 * @property {Deflated} [values]
 * @property {Deflated} [objects] how many are in view
 * @property {number} [score_threshold] of boxes that are kept
 * @property {number} [median_swing]
 * @property {(PackedBoxes | PackedMasks)[]} [outputs]
 */
/** @typedef {Awaited<ReturnType<typeof ShiftlensTable.opened>>} StageTable */
/** @typedef {{prediction: Uint16Array, confidence: Uint16Array, loss: Uint16Array | null, values: Uint16Array, objects: Uint16Array}} Tables */
/** @typedef {{value: number, cell: Cell}} End */

const ShiftlensTable = (() => {
  const MOST_LOSS = 65535;
  const NO_VALUE = 1001;
  const NONE = new Uint16Array(0);

  /** @type {(packed: Deflated) => Promise<Uint16Array>} */
  async function inflated(packed) {
    const raw = Uint8Array.from(atob(packed.deflate), (each) => each.charCodeAt(0));
    const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
    const n = packed.shape.reduce((product, each) => product * each, 1);
    const out = new Uint16Array(n);
    for (let k = 0; k < n; k += 1) {
      const code = bytes[k] + (packed.planes > 1 ? 256 * bytes[n + k] : 0);
      out[k] = packed.axes && code & 1 ? -(code + 1) / 2 : packed.axes ? code / 2 : code;
    }
    // Differences along the last axes are added up again, one axis after the other; they wrap around.
    let step = 1;
    for (const length of packed.shape.slice(packed.shape.length - packed.axes).reverse()) {
      for (let k = step; k < n; k += 1) {
        if (Math.floor(k / step) % length) {
          out[k] += out[k - step];
        }
      }
      step *= length;
    }
    return out;
  }

  // Thousandths below 0.1 nats, hundredths from code 100 on.
  /** @type {(code: number) => number} */
  const lossOf = (code) => (code < 100 ? code / 1000 : (code - 90) / 100);

  /** @type {(loss: number) => string} */
  function lossText(loss) {
    if (loss >= lossOf(MOST_LOSS)) {
      return `over ${Math.floor(loss)}`;
    }
    return loss < 0.0995 ? loss.toFixed(3) : loss.toFixed(2);
  }

  /** @type {(data: StageData) => Promise<ReturnType<typeof made>>} */
  async function opened(data) {
    const some = async (/** @type {Deflated | null | undefined} */ packed) => (packed ? inflated(packed) : NONE);
    const models = await Promise.all(
      data.models.map(async (each) => ({
        prediction: await some(each.prediction),
        confidence: await some(each.confidence),
        loss: each.loss ? await some(each.loss) : null,
        values: await some(each.values),
        objects: await some(each.objects),
      })),
    );
    return made(data, models);
  }

  /**
   * @param {StageData} data
   * @param {Tables[]} models
   */
  function made(data, models) {
    const ny = data.dys.length;
    const nx = data.dxs.length;
    /** @type {Cell} */
    const origin = { row: data.dys.indexOf(0), column: data.dxs.indexOf(0) };

    /** @type {(model: number, image: number) => Uint16Array} */
    const winners = (model, image) => models[model].prediction.subarray(image * ny * nx, (image + 1) * ny * nx);

    /** @type {(code: number) => number | null} */
    const percent = (code) => (code === NO_VALUE ? null : code / 10);

    return {
      origin,
      winners,
      /** Where a cell is, in words. @type {(cell: Cell) => string} */
      placed: ({ row, column }) =>
        `dx ${ShiftlensParts.signed(data.dxs[column])}, dy ${ShiftlensParts.signed(data.dys[row])} px`,
      /** A metric in per cent, null where it is not defined. @type {(model: number, image: number, cell: Cell) => number | null} */
      value: (model, image, { row, column }) => percent(models[model].values[(image * ny + row) * nx + column]),
      /** Objects in view. @type {(model: number, image: number, cell: Cell) => number} */
      objects: (model, image, { row, column }) => models[model].objects[(image * ny + row) * nx + column],
      /** All values of an image, and the ends of those at most half the image away. @type {(model: number, image: number) => {values: Float64Array, lowest: End | null, highest: End | null}} */
      range(model, image) {
        const own = models[model].values.subarray(image * ny * nx, (image + 1) * ny * nx);
        const values = Float64Array.from(own, (code) => percent(code) ?? NaN);
        /** @type {End | null} */
        let lowest = null;
        /** @type {End | null} */
        let highest = null;
        values.forEach((value, k) => {
          const cell = { row: Math.floor(k / nx), column: k % nx };
          const near = Math.abs(data.dys[cell.row]) <= data.half[0] && Math.abs(data.dxs[cell.column]) <= data.half[1];
          if (near && Number.isFinite(value)) {
            lowest = lowest === null || value < lowest.value ? { value, cell } : lowest;
            highest = highest === null || value > highest.value ? { value, cell } : highest;
          }
        });
        return { values, lowest, highest };
      },
      /** @type {(model: number, image: number, cell: Cell) => Said} */
      at(model, image, { row, column }) {
        const k = (image * ny + row) * nx + column;
        const { prediction, confidence, loss } = models[model];
        return { predicted: prediction[k], confidence: confidence[k] / 10, loss: loss ? lossOf(loss[k]) : null };
      },
      /** @type {(model: number, image: number) => Flips} */
      flips(model, image) {
        const own = winners(model, image);
        const unshifted = own[origin.row * nx + origin.column];
        let changed = 0;
        let nShifts = 0;
        /** @type {Cell | null} */
        let nearest = null;
        let length = Infinity;
        data.dys.forEach((dy, row) => {
          data.dxs.forEach((dx, column) => {
            const flipped = own[row * nx + column] !== unshifted;
            if (Math.abs(dy) <= data.half[0] && Math.abs(dx) <= data.half[1]) {
              nShifts += 1;
              changed += flipped ? 1 : 0;
            }
            if (flipped && Math.hypot(dx, dy) < length) {
              nearest = { row, column };
              length = Math.hypot(dx, dy);
            }
          });
        });
        return { share: changed / nShifts, nearest, length };
      },
      /** The cell of a shift in px: the nearest of the grid. @type {(dx: number, dy: number) => Cell} */
      cellOf(dx, dy) {
        return { row: nearestTo(data.dys, dy), column: nearestTo(data.dxs, dx) };
      },
    };
  }

  /** @type {(axis: number[], value: number) => number} */
  function nearestTo(axis, value) {
    const step = axis.length > 1 ? axis[1] - axis[0] : 1;
    return Math.min(axis.length - 1, Math.max(0, Math.round((value - axis[0]) / step)));
  }

  // The cells after `from` up to and with `to`, along a straight line.
  /** @type {(from: Cell, to: Cell) => Cell[]} */
  function way(from, to) {
    const down = to.row - from.row;
    const across = to.column - from.column;
    const n = Math.max(Math.abs(down), Math.abs(across));
    return Array.from({ length: n }, (_, k) => ({
      row: from.row + Math.round((down * (k + 1)) / n),
      column: from.column + Math.round((across * (k + 1)) / n),
    }));
  }

  /** @type {(link: {image: number, dx: number, dy: number}) => string} */
  const linkOf = ({ image, dx, dy }) => `#image=${image}&dx=${dx}&dy=${dy}`;

  /** @type {(hash: string) => {image: number, dx: number, dy: number} | null} */
  function linked(hash) {
    const given = new URLSearchParams(hash.replace(/^#/, ""));
    const [image, dx, dy] = ["image", "dx", "dy"].map((name) => {
      const text = given.get(name) ?? (name === "image" ? "" : "0");
      return /^-?\d{1,9}$/.test(text) ? Number(text) : NaN;
    });
    return Number.isNaN(image + dx + dy) ? null : { image, dx, dy };
  }

  return { opened, inflated, way, linkOf, linked, lossText };
})();
