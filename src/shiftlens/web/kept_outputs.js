// Masks and boxes that a sweep kept of an image, unpacked: what is found at each shift. Nothing is drawn here.
//
//   const output = await ShiftlensKept.boxesOf(packed, data);  // or masksOf; made by reporting/stage_outputs.py
//   output.boxes(cell);                     // [{ left, top, right, bottom, score, which }], in px of the image
//   output.classes(cell);                   // the class of each cell, row after row; output.rows, output.columns
"use strict";

/** @typedef {{left: number, top: number, right: number, bottom: number, score: number, which: number}} Box */
/** @typedef {{counts: Deflated, boxes: Deflated, parts: number}} PackedBoxes */
/** @typedef {{still: Deflated, change: Deflated, every: number}} PackedMasks */
/** @typedef {{boxes: (cell: Cell) => Box[]}} KeptBoxes */
/** @typedef {{classes: (cell: Cell) => Uint16Array, rows: number, columns: number, every: number}} KeptMasks */

const ShiftlensKept = (() => {
  /** @type {(packed: PackedBoxes, data: StageData) => Promise<KeptBoxes>} */
  async function boxesOf(packed, data) {
    const counts = await ShiftlensTable.inflated(packed.counts);
    const table = await ShiftlensTable.inflated(packed.boxes);
    const [, nParts, nCells] = packed.boxes.shape;
    return {
      boxes({ row, column }) {
        const cell = row * data.dxs.length + column;
        return Array.from({ length: counts[cell] }, (_, rank) => {
          const part = (/** @type {number} */ k) => table[(rank * nParts + k) * nCells + cell];
          // Sides are kept relative to the shift, modulo 2**16.
          const side = (/** @type {number} */ k, /** @type {number} */ shift) =>
            ((part(k) + packed.parts * shift + 2 ** 17) % 2 ** 16) / packed.parts;
          const [dx, dy] = [data.dxs[column], data.dys[row]];
          return {
            left: side(0, dx),
            top: side(1, dy),
            right: side(2, dx),
            bottom: side(3, dy),
            score: part(4) / 1000,
            which: part(5),
          };
        });
      },
    };
  }

  /** @type {(packed: PackedMasks, data: StageData) => Promise<KeptMasks>} */
  async function masksOf(packed, data) {
    const still = await ShiftlensTable.inflated(packed.still);
    const change = await ShiftlensTable.inflated(packed.change);
    const [rows, columns] = packed.still.shape;
    const { every } = packed;
    return {
      rows,
      columns,
      every,
      classes({ row, column }) {
        const down = Math.round(data.dys[row] / every);
        const across = Math.round(data.dxs[column] / every);
        const from = (row * data.dxs.length + column) * rows * columns;
        const out = change.slice(from, from + rows * columns);
        // The unshifted map moved along; nothing else was kept than where it is not that.
        for (let y = Math.max(0, down); y < Math.min(rows, rows + down); y += 1) {
          for (let x = Math.max(0, across); x < Math.min(columns, columns + across); x += 1) {
            out[y * columns + x] ^= still[(y - down) * columns + x - across];
          }
        }
        return out;
      },
    };
  }

  return { boxesOf, masksOf };
})();
