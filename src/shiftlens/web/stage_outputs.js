// What the stage shows of an image with masks or boxes: those that the sweep kept, over the image, and a metric of it.
//
//   const view = ShiftlensOutputs.create(data, table, maps, changed);   // a StageView, see stage_parts.js
//
// `changed` is called when an image's masks or boxes have been unpacked. What tests may hold on to:
//
//   #stage-says-M                 data-value (per cent, or ""); data-found: boxes [class, score, left, top, right,
//                                 bottom], or [class, share of the cells in per cent] of a mask, as JSON; "" until known
//   #stage-over-M                 the canvas over the image
"use strict";

const ShiftlensOutputs = (() => {
  const { at, put, COLOURS, OTHERS } = ShiftlensParts;
  const OPAQUE = 150; // of 255: the image shows through
  const FONT = 12;
  const CACHED = 4;
  const MOST_LISTED = 10;

  /**
   * @param {StageData} data
   * @param {StageTable} table
   * @param {ReturnType<typeof ShiftlensHeatmap.create>[]} maps
   * @param {() => void} changed
   * @returns {StageView}
   */
  function create(data, table, maps, changed) {
    const boxed = data.kind === "boxes";
    const viridis = Uint8Array.from(atob(ShiftlensPage.colours.viridis), (each) => each.charCodeAt(0));
    /** @type {Map<string, {boxes?: (cell: Cell) => Box[], masks?: KeptMasks, colours: Map<number, number>}>} */
    const opened = new Map();
    /** @type {(which: number) => string} */
    const called = (which) => {
      const name = which < data.class_names.length ? data.class_names[which] : String(which);
      return name === String(which) ? `class ${which}` : name;
    };
    /** @type {(value: number | null) => string} */
    const percent = (value) => (value === null ? "not defined" : `${value.toFixed(1)} %`);

    /** @type {(model: number, image: number) => string} */
    const keyOf = (model, image) => `${model} ${image}`;

    /** @type {(model: number, image: number) => Promise<void>} */
    async function open(model, image) {
      const packed = (data.models[model].outputs ?? [])[image];
      if (boxed) {
        const { boxes } = await ShiftlensKept.boxesOf(/** @type {PackedBoxes} */ (packed), data);
        opened.set(keyOf(model, image), { boxes, colours: ranked((cell) => boxes(cell).map((each) => each.which)) });
      } else {
        const masks = await ShiftlensKept.masksOf(/** @type {PackedMasks} */ (packed), data);
        // The class of most cells, such as the background, is left as the image is.
        const colours = ranked((cell) => masks.classes(cell));
        const [background] = colours.keys();
        colours.delete(background);
        colours.forEach((place, which) => colours.set(which, Math.max(0, place - 1)));
        opened.set(keyOf(model, image), { masks, colours });
      }
      for (const old of [...opened.keys()].slice(0, -CACHED)) {
        opened.delete(old);
      }
      changed();
    }

    // Colours of classes, the most frequent first; counted at a few shifts that reach all over the grid.
    /** @type {(found: (cell: Cell) => ArrayLike<number>) => Map<number, number>} */
    function ranked(found) {
      const counts = new Map();
      const some = (/** @type {number[]} */ axis) => Math.max(1, Math.floor(axis.length / 8));
      const cells = [table.origin];
      for (let row = 0; row < data.dys.length; row += some(data.dys)) {
        for (let column = 0; column < data.dxs.length; column += some(data.dxs)) {
          cells.push({ row, column });
        }
      }
      for (const cell of cells) {
        for (const which of Array.from(found(cell))) {
          counts.set(which, (counts.get(which) || 0) + 1);
        }
      }
      const order = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a) || a - b);
      return new Map(order.map((which, k) => /** @type {[number, number]} */ ([which, Math.min(k, OTHERS)])));
    }

    // ---- in words

    /** @type {(model: number, image: number, cell: Cell) => string} */
    function sayOne(model, image, cell) {
      const value = table.value(model, image, cell);
      const box = at(`stage-says-${model}`);
      put(box, ".value", percent(value));
      /** @type {HTMLElement} */ (box.querySelector(".bar div")).style.width = `${value ?? 0}%`;
      box.dataset.value = value === null ? "" : value.toFixed(1);
      const known = opened.get(keyOf(model, image));
      const list = /** @type {HTMLElement} */ (box.querySelector(".found"));
      if (!known) {
        box.dataset.found = "";
        list.replaceChildren();
        return percent(value);
      }
      const colour = (/** @type {number} */ which) => COLOURS[known.colours.get(which) ?? OTHERS];
      if (known.boxes) {
        const boxes = known.boxes(cell).sort((a, b) => b.score - a.score);
        // The metric is a mean over the objects, and reads scores that are too low for a box.
        const nObjects = table.objects(model, image, cell);
        const number = `${boxes.length} ${boxes.length === 1 ? "box" : "boxes"}`;
        put(
          box,
          ".number",
          `${nObjects} ${nObjects === 1 ? "object" : "objects"} in view, ${number} of a score of at least ${data.models[model].score_threshold}`,
        );
        const items = boxes
          .slice(0, MOST_LISTED)
          .map(({ which, score }) => ShiftlensParts.key(colour(which), `${called(which)}: ${score.toFixed(2)}`));
        if (boxes.length > MOST_LISTED) {
          items.push(ShiftlensParts.key("transparent", `${boxes.length - MOST_LISTED} more`));
        }
        list.replaceChildren(...items);
        box.dataset.found = JSON.stringify(
          boxes.map((each) => [each.which, each.score, each.left, each.top, each.right, each.bottom]),
        );
        return `${percent(value)}, ${number}`;
      }
      const shares = sharesOf(/** @type {KeptMasks} */ (known.masks).classes(cell));
      list.replaceChildren(
        ...shares.map(([which, share]) => {
          const text = `${called(which)}: ${share.toFixed(1)} %`;
          return ShiftlensParts.key(known.colours.has(which) ? colour(which) : "transparent", text);
        }),
      );
      box.dataset.found = JSON.stringify(shares);
      return percent(value);
    }

    /** @type {(classes: Uint16Array) => [number, number][]} */
    function sharesOf(classes) {
      const counts = new Map();
      classes.forEach((which) => counts.set(which, (counts.get(which) || 0) + 1));
      return [...counts.keys()].sort((a, b) => a - b).map((which) => [which, (100 * counts.get(which)) / classes.length]);
    }

    /** @param {number} image */
    function show(image) {
      return data.models.map((each, model) => {
        const metric = each.metric ? each.metric.called : "";
        const { lowest, highest, values } = table.range(model, image);
        maps[model].show({ values, low: 0, high: 100, palette: viridis, outline: null });
        if (!opened.has(keyOf(model, image))) {
          open(model, image);
        }
        const who = data.models.length > 1 ? `${each.name}: ` : "";
        const still = percent(table.value(model, image, table.origin));
        if (!lowest || !highest) {
          return `${who}${metric} is not defined for this image.`;
        }
        const reach = `${percent(lowest.value)} (${table.placed(lowest.cell)}) to ${percent(highest.value)}`;
        const usual = (100 * (each.median_swing ?? 0)).toFixed(1);
        return (
          `${who}${metric} is ${still} unshifted, and from ${reach} over the shifts of at most half the image: ` +
          `${(highest.value - lowest.value).toFixed(1)} points (median of the images shown here: ${usual}).`
        );
      });
    }

    // ---- over the image

    /** @type {(image: number, cell: Cell) => void} */
    function draw(image, cell) {
      data.models.forEach((_, model) => {
        const canvas = /** @type {HTMLCanvasElement} */ (at(`stage-over-${model}`));
        const context = canvas.getContext("2d");
        const known = opened.get(keyOf(model, image));
        if (!context || !canvas.clientWidth) {
          return;
        }
        const ratio = window.devicePixelRatio || 1;
        canvas.width = Math.round(canvas.clientWidth * ratio);
        canvas.height = Math.round(canvas.clientHeight * ratio);
        if (known && known.boxes) {
          const scale = canvas.clientWidth / data.sprite.image_size[1];
          context.scale(ratio, ratio);
          known.boxes(cell).forEach((box) => {
            drawBox(context, box, scale, COLOURS[known.colours.get(box.which) ?? OTHERS]);
          });
        } else if (known && known.masks) {
          drawMask(context, known.masks, known.masks.classes(cell), known.colours);
        }
      });
    }

    /** @type {(context: CanvasRenderingContext2D, box: Box, scale: number, colour: string) => void} */
    function drawBox(context, box, scale, colour) {
      const [x, y] = [box.left * scale, box.top * scale];
      const [w, h] = [(box.right - box.left) * scale, (box.bottom - box.top) * scale];
      for (const [width, stroke] of /** @type {[number, string][]} */ ([
        [4, "#000000"],
        [2, colour],
      ])) {
        context.lineWidth = width;
        context.strokeStyle = stroke;
        context.strokeRect(x, y, w, h);
      }
      const name = box.which < data.class_names.length ? data.class_names[box.which] : String(box.which);
      const text = `${name.length > 14 ? `${name.slice(0, 13)}…` : name} ${box.score.toFixed(2)}`;
      context.font = `600 ${FONT}px system-ui, sans-serif`;
      const wide = context.measureText(text).width + 6;
      const frame = context.canvas.clientWidth;
      // Above the box, or inside it where there is no room; always in the frame.
      const left = Math.max(0, Math.min(x - 1, frame - wide));
      const top = y >= FONT + 4 ? y - FONT - 4 : y + 1;
      context.fillStyle = colour;
      context.fillRect(left, top, wide, FONT + 4);
      context.fillStyle = "#000000";
      context.textBaseline = "top";
      context.fillText(text, left + 3, top + 2);
    }

    const small = document.createElement("canvas");

    /** @type {(context: CanvasRenderingContext2D, masks: KeptMasks, classes: Uint16Array, colours: Map<number, number>) => void} */
    function drawMask(context, { rows, columns, every }, classes, colours) {
      [small.height, small.width] = [rows, columns];
      const pen = /** @type {CanvasRenderingContext2D} */ (small.getContext("2d"));
      const picture = pen.createImageData(columns, rows);
      classes.forEach((which, k) => {
        const place = colours.get(which);
        if (place !== undefined) {
          picture.data.set(ShiftlensParts.PALETTE.subarray(3 * place, 3 * place + 3), 4 * k);
          picture.data[4 * k + 3] = OPAQUE;
        }
      });
      pen.putImageData(picture, 0, 0);
      const [height, width] = data.sprite.image_size;
      const { canvas } = context;
      context.imageSmoothingEnabled = false;
      context.drawImage(small, 0, 0, (canvas.width * columns * every) / width, (canvas.height * rows * every) / height);
    }

    data.models.forEach((_, model) => {
      new ResizeObserver(changed).observe(at(`stage-over-${model}`));
    });

    return {
      named: () => "",
      show,
      say: (image, cell) => data.models.map((_, model) => sayOne(model, image, cell)),
      curve(model, image, cell) {
        const known = opened.get(keyOf(model, image));
        const value = table.value(model, image, cell);
        return { value: value === null ? NaN : value, mark: known && known.boxes ? known.boxes(cell).length : 0 };
      },
      towards(image) {
        const { lowest } = table.range(0, image);
        return lowest ? lowest.cell : null;
      },
      draw,
    };
  }

  return { create };
})();
