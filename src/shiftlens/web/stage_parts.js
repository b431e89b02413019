// What the views of the stage and the live page share: colours, and how texts get onto the page (always as text, never
// as markup).
"use strict";

/**
 * @typedef {object} StageView
 * @property {(image: number) => string} named what stands after the number of an image
 * @property {(image: number) => string[]} show draws its maps and legends; returns a sentence for each model
 * @property {(image: number, cell: Cell) => string[]} say fills the boxes beside it; returns the same in words
 * @property {(model: number, image: number, cell: Cell) => {value: number, mark: number}} curve
 * @property {(image: number) => Cell | null} towards where the opening move goes to
 * @property {(image: number, cell: Cell) => void} draw what lies over the image
 */

const ShiftlensParts = (() => {
  // Okabe and Ito's colours, safe for colour-blind readers; the last is for all the rest.
  const COLOURS = ["#56b4e9", "#e69f00", "#cc79a7", "#009e73", "#f0e442", "#d55e00", "#0072b2", "#999999"];
  const PALETTE = new Uint8Array(3 * 256);
  COLOURS.forEach((colour, k) => {
    [1, 3, 5].forEach((from, channel) => {
      PALETTE[3 * k + channel] = parseInt(colour.slice(from, from + 2), 16);
    });
  });

  return {
    COLOURS,
    OTHERS: COLOURS.length - 1,
    PALETTE,
    /** @type {<T extends HTMLElement>(id: string) => T} */
    at: (id) => /** @type {any} */ (document.getElementById(id)),
    /** @type {(value: number) => string} */
    signed: (value) => (value > 0 ? `+${value}` : String(value).replace("-", "−")),
    /** @type {(box: Element, part: string, text: string) => void} */
    put(box, part, text) {
      const element = box.querySelector(part);
      if (element) {
        element.textContent = text;
      }
    },
    /** An entry of a legend. @type {(colour: string, text: string) => HTMLLIElement} */
    key(colour, text) {
      const item = document.createElement("li");
      const chip = document.createElement("span");
      chip.className = "chip";
      chip.style.background = colour;
      item.append(chip, text);
      return item;
    },
  };
})();
