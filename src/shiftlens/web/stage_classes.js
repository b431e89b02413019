// What the stage says of an image of which classes are predicted: the class, its confidence and loss, where it changes.
//
//   const view = ShiftlensClasses.create(data, table, maps);   // maps: a heat map for each model
//   view.show(image);                       // its maps and legends; returns a sentence on it
//   view.say(image, cell);                  // the boxes beside the image; returns the same in words, one a model
//   view.curve(model, image, cell);         // { value, mark }: per cent for the chart, and what a change is seen by
//   view.towards(image);                    // where the opening move goes to, or null
"use strict";

const ShiftlensClasses = (() => {
  const { at, put } = ShiftlensParts;
  // Okabe and Ito's colours, safe for colour-blind readers: the first is that of the true class, the last of all the rest.
  const { COLOURS, OTHERS, PALETTE } = ShiftlensParts;

  /**
   * @param {StageData} data
   * @param {StageTable} table
   * @param {ReturnType<typeof ShiftlensHeatmap.create>[]} maps
   * @returns {StageView}
   */
  function create(data, table, maps) {
    /** @type {Map<number, number>} */
    let colours = new Map();
    /** @type {(which: number) => string} */
    const called = (which) => (which < data.class_names.length ? data.class_names[which] : String(which));

    /** @type {(model: number, image: number, cell: Cell) => string} */
    function sayOne(model, image, cell) {
      const said = table.at(model, image, cell);
      const unshifted = table.at(model, image, table.origin).predicted;
      const box = at(`stage-says-${model}`);
      const colour = COLOURS[colours.get(said.predicted) ?? OTHERS];
      put(box, ".class", called(said.predicted));
      put(box, ".judged", judged(image, said.predicted, unshifted));
      put(box, ".confidence", `${said.confidence.toFixed(1)} %`);
      put(box, ".loss", said.loss === null ? "" : `, loss ${ShiftlensTable.lossText(said.loss)} nats`);
      box.classList.toggle("wrong", data.label ? said.predicted !== data.label[image] : said.predicted !== unshifted);
      /** @type {HTMLElement} */ (box.querySelector(".chip")).style.background = colour;
      const bar = /** @type {HTMLElement} */ (box.querySelector(".bar div"));
      bar.style.background = colour;
      bar.style.width = `${said.confidence}%`;
      box.dataset.predicted = String(said.predicted);
      box.dataset.confidence = said.confidence.toFixed(1);
      box.dataset.loss = said.loss === null ? "" : String(said.loss);
      return `${called(said.predicted)}, ${said.confidence.toFixed(1)} %`;
    }

    /** @type {(image: number, predicted: number, unshifted: number) => string} */
    function judged(image, predicted, unshifted) {
      if (!data.label) {
        return predicted === unshifted ? "as unshifted" : `unshifted: ${called(unshifted)}`;
      }
      return predicted === data.label[image] ? "right" : `wrong: it is ${called(data.label[image])}`;
    }

    /** @param {number} image */
    function show(image) {
      const counts = new Map();
      data.models.forEach((_, model) => {
        for (const each of table.winners(model, image)) {
          counts.set(each, (counts.get(each) || 0) + 1);
        }
      });
      const first = data.label ? data.label[image] : table.at(0, image, table.origin).predicted;
      const ranked = [...counts.keys()].filter((each) => each !== first).sort((a, b) => counts.get(b) - counts.get(a));
      const own = ranked.slice(0, OTHERS - 1);
      colours = new Map([[first, 0], ...own.map((each, k) => /** @type {[number, number]} */ ([each, k + 1]))]);
      maps.forEach((map, model) => {
        const classes = table.winners(model, image);
        map.show({
          values: Float64Array.from(classes, (each) => colours.get(each) ?? OTHERS),
          low: 0,
          high: 256,
          palette: PALETTE,
          outline: null,
          boundaries: classes,
        });
        legend(model, classes);
      });
      return data.models.map((each, model) => {
        const { share, nearest, length } = table.flips(model, image);
        const who = data.models.length > 1 ? `${each.name}: the` : "the";
        const where = nearest
          ? `; the nearest is ${length.toFixed(1)} px away (${table.placed(nearest)})`
          : ", and at no shift of the sweep";
        return (
          `${who} predicted class changes at ${(100 * share).toFixed(1)} % of the shifts of at most half the image ` +
          `(median image: ${(100 * (each.median_share ?? 0)).toFixed(1)} %)${where}.`
        );
      });
    }

    /** @type {(model: number, classes: Uint16Array) => void} */
    function legend(model, classes) {
      const counts = Array.from(COLOURS, () => 0);
      for (const each of classes) {
        counts[colours.get(each) ?? OTHERS] += 1;
      }
      const names = [...colours].map(([which, place]) => ({ name: called(which), place }));
      names.push({ name: "other classes", place: OTHERS });
      const items = names
        .filter(({ place }) => counts[place])
        .map(({ name, place }) => {
          const truth = place === 0 ? (data.label ? " (true)" : " (unshifted)") : "";
          const share = ((100 * counts[place]) / classes.length).toFixed(1);
          return ShiftlensParts.key(COLOURS[place], `${name}${truth} ${share} %`);
        });
      at(`stage-legend-${model}`).replaceChildren(...items);
    }

    return {
      named: (image) => (data.label ? ` (${called(data.label[image])})` : ""),
      show,
      say: (image, cell) => data.models.map((_, model) => sayOne(model, image, cell)),
      curve(model, image, cell) {
        const said = table.at(model, image, cell);
        return { value: said.confidence, mark: said.predicted };
      },
      towards: (image) => table.flips(0, image).nearest,
      draw() {},
    };
  }

  return { create };
})();
