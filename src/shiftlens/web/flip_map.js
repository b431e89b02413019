// Where one image's predicted class flips: a small sweep that the server runs row by row, drawn as a map of classes.
//
//   const flips = ShiftlensFlips.create(figure, element, { label, order, named, moveTo });
//   await flips.read(response, (share) => ..., () => stopped);
//   flips.select(dx, dy);    flips.redraw();    flips.forget();
"use strict";

/** @typedef {{dys: number[], dxs: number[]}} ShiftGrid */

const ShiftlensFlips = (() => {
  // The first colour is that of the unshifted class.
  const { COLOURS, OTHERS, PALETTE } = ShiftlensParts;

  /**
   * @param {HTMLElement} figure with a .legend and a figcaption; its data-done is "yes" when all rows are there
   * @param {HTMLElement} element for the map
   * @param {{label: () => string, order: number[], named: (k: number) => string, moveTo: (dx: number, dy: number) => void}} given
   *   order: classes in the order of their colours, which maps that share it have in common
   */
  function create(figure, element, { label, order, named, moveTo }) {
    /** @type {ReturnType<typeof ShiftlensHeatmap.create> | null} */
    let map = null;
    /** @type {ShiftGrid} */
    let grid = { dys: [], dxs: [] };
    /** @type {[number, number]} */
    let place = [0, 0];

    function mark() {
      const [row, column] = [grid.dys.indexOf(place[1]), grid.dxs.indexOf(place[0])];
      map?.select(row < 0 || column < 0 ? null : { row, column });
    }

    function forget() {
      map?.destroy();
      map = null;
      figure.hidden = true;
      delete figure.dataset.done;
    }

    /** @param {number[]} classes */
    function draw(classes) {
      const { dys, dxs } = grid;
      const counts = new Map();
      classes.forEach((each) => counts.set(each, (counts.get(each) || 0) + 1));
      const unshifted = classes[dys.indexOf(0) * dxs.length + dxs.indexOf(0)];
      const others = [...counts.keys()].filter((each) => each !== unshifted).sort((a, b) => counts.get(b) - counts.get(a));
      order.push(...[unshifted, ...others].filter((each) => !order.includes(each)));
      const rank = new Map(order.map((each, k) => [each, Math.min(k, OTHERS)]));
      figure.hidden = false;
      map = ShiftlensHeatmap.create(
        element,
        { ...grid, label: `Classes predicted at each shift, ${label()}` },
        { onSelect: ({ row, column }) => moveTo(dxs[column], dys[row]) },
      );
      map.show({ values: classes.map((each) => rank.get(each) ?? 0), low: 0, high: 256, palette: PALETTE, outline: null, boundaries: classes });
      mark();
      /** @type {(k: number) => string} */
      const share = (k) => `${((100 * k) / classes.length).toFixed(1)} %`;
      /** @type {[string, string][]} */
      const entries = order
        .slice(0, OTHERS)
        .filter((each) => counts.has(each))
        .map((each) => [COLOURS[rank.get(each) ?? OTHERS], `${named(each)} ${share(counts.get(each))}`]);
      const rest = order.slice(OTHERS).reduce((sum, each) => sum + (counts.get(each) || 0), 0);
      if (rest) {
        entries.push([COLOURS[OTHERS], `other classes ${share(rest)}`]);
      }
      /** @type {HTMLElement} */ (figure.querySelector(".legend")).replaceChildren(
        ...entries.map(([colour, text]) => ShiftlensParts.key(colour, text)),
      );
      /** @type {HTMLElement} */ (figure.querySelector("figcaption")).textContent =
        `The class predicted at each shift of at most half the image, ${label()}. Lines: where it flips. Click a cell to move there`;
      figure.dataset.done = "yes";
    }

    return {
      forget,
      redraw: () => map?.redraw(),
      /** @type {(dx: number, dy: number) => void} */
      select(dx, dy) {
        place = [dx, dy];
        mark();
      },
      /** @type {(response: Response, step: (share: number) => void, isStopped: () => boolean) => Promise<void>} */
      async read(response, step, isStopped) {
        const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
        const decoder = new TextDecoder();
        let waiting = "";
        /** @type {any[]} */
        const lines = [];
        for (;;) {
          const { done, value } = await reader.read();
          if (isStopped()) {
            await reader.cancel();
            return;
          }
          if (done) {
            break;
          }
          waiting += decoder.decode(value, { stream: true });
          const parts = waiting.split("\n");
          waiting = parts.pop() || "";
          lines.push(...parts.map((line) => JSON.parse(line)));
          if (lines.length) {
            step((lines.length - 1) / lines[0].dys.length);
          }
        }
        const [first, ...rows] = lines;
        if (!first || rows.length !== first.dys.length) {
          throw new Error("the sweep was not complete: is the server still running?");
        }
        grid = first;
        draw(rows.flat());
      },
    };
  }

  return { create };
})();
