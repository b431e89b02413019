// The live page: an image is dragged, and the model answers from this machine.
//
// What tests may hold on to (K is 0 for the model as it is, 1 for the copy that pads otherwise):
//
//   html[data-ready="yes"]   set after the first answer
//   #frame                   the image: drag; arrow keys (Shift: 5 px), Home; data-dx, data-dy, data-image
//   #says-K                  data-dx, data-dy, data-predicted (class number), data-probability, data-logit, data-padding
//   #image, #photo, #fill, #padding, #layer, #home, #sweep
//   #flips-K                 data-done="yes" when the small sweep is over; #map-K canvas
//   #rate                    data-rate: answers a second
"use strict";

/** @typedef {{name: string, rgb: number[] | null, rule: string}} FillChoice */
/**
 * @typedef {object} About
 * @property {string} model
 * @property {string} data
 * @property {number} n_images
 * @property {[number, number]} size
 * @property {string[]} class_names
 * @property {string[]} paddings
 * @property {FillChoice[]} fills
 * @property {string[]} layers
 * @property {Packed} palette
 */
/** @typedef {{dtype: string, shape: number[], data: string}} Packed */
/** @typedef {{cells: Packed, low: number, high: number, n_filters: number}} Maps */
/** @typedef {{number: number, name: string, logit: number, probability: number}} Score */
/** @typedef {{dx: number, dy: number, classes: Score[], label: string | null, loss: number | null, maps: Maps | null}} Answer */

(() => {
  const COLOURS = ["#56b4e9", "#e69f00", "#cc79a7", "#009e73", "#f0e442", "#d55e00", "#0072b2", "#999999"];
  const FAR = 5;
  const LIVE_FROM = 4; // answers a second; with fewer, the model is asked when the image is let go
  const MEASURED = 5;

  /** @type {<T extends HTMLElement>(id: string) => T} */
  const at = (id) => /** @type {any} */ (document.getElementById(id));
  /** @type {(value: number) => string} */
  const signed = (value) => (value > 0 ? `+${value}` : String(value).replace("-", "−"));
  const frame = /** @type {HTMLCanvasElement} */ (at("frame"));
  /** @type {(id: string) => HTMLSelectElement} */
  const select = (id) => at(id);

  /** @type {(where: string, body?: BodyInit) => Promise<Response>} */
  async function ask(where, body) {
    const response = await fetch(where, body === undefined ? {} : { method: "POST", body });
    if (!response.ok) {
      throw new Error(await response.text());
    }
    return response;
  }

  /** @type {(packed: Packed) => Uint8Array} */
  const bytes = (packed) => Uint8Array.from(atob(packed.data), (each) => each.charCodeAt(0));

  /** @param {unknown} error */
  function fail(error) {
    at("problem").textContent = error instanceof Error ? error.message : String(error);
  }

  /** @param {About} about */
  async function begin(about) {
    const [height, width] = about.size;
    let image = "0";
    let dx = 0;
    let dy = 0;
    /** @type {ReturnType<typeof ShiftlensPicture.of> | null} */
    let picture = null;
    let uri = "";
    let busy = false;
    let again = false;
    let held = false;
    let sweeping = 0;
    /** @type {number[]} */
    const took = [];

    at("model").textContent = about.model;
    frame.width = width;
    frame.height = height;
    /** @type {HTMLInputElement} */ (at("image")).max = String(about.n_images - 1);
    fillSelect("fill", about.fills.map((each) => each.name), "black");
    fillSelect("padding", about.paddings, about.paddings.includes("symmetric") ? "symmetric" : about.paddings[0]);
    fillSelect("layer", about.layers, "");

    /** @type {(id: string, names: string[], chosen: string) => void} */
    function fillSelect(id, names, chosen) {
      for (const name of names) {
        const option = document.createElement("option");
        option.value = name;
        option.textContent = name;
        select(id).append(option);
      }
      select(id).value = chosen;
    }

    const paddings = () => (about.paddings.length > 1 ? [about.paddings[0], select("padding").value] : [about.paddings[0]]);

    // ---- the image

    function repaint() {
      const fill = about.fills[select("fill").selectedIndex];
      const sprite = { uri, columns: 1, size: about.size, image_size: about.size, fill };
      picture = ShiftlensPicture.of(sprite, draw);
    }

    function draw() {
      picture?.draw(frame, 0, dx, dy);
      at("shift").textContent = `dx ${signed(dx)}, dy ${signed(dy)} px`;
      frame.setAttribute("aria-label", `${image.startsWith("photo") ? "your photo" : `image ${image}`}, moved by ${at("shift").textContent}`);
      Object.assign(frame.dataset, { dx, dy, image });
    }

    /** @param {string} name */
    async function show(name) {
      uri = (await (await ask(`image/${name}`)).json()).uri;
      image = name;
      dx = 0;
      dy = 0;
      at("problem").textContent = "";
      forget();
      repaint();
      draw();
      await answer();
    }

    /** @param {Blob} file */
    async function take(file) {
      try {
        await show((await (await ask("photo", file)).json()).image);
      } catch (error) {
        fail(error);
      }
    }

    // ---- answers: one question at a time, the latest wins

    async function answer() {
      if (busy) {
        again = true;
        return;
      }
      busy = true;
      try {
        do {
          again = false;
          const begun = performance.now();
          for (const [k, padding] of paddings().entries()) {
            const layer = select("layer").value || null;
            const asked = { image, dx, dy, fill: select("fill").value, padding, layer };
            say(k, padding, await (await ask("answer", JSON.stringify(asked))).json());
          }
          told(performance.now() - begun);
        } while (again);
        at("problem").textContent = "";
      } catch (error) {
        fail(error);
      } finally {
        busy = false;
      }
    }

    /** @param {number} milliseconds */
    function told(milliseconds) {
      took.push(milliseconds);
      if (took.length > MEASURED) {
        took.shift();
      }
      const rate = 1000 / [...took].sort((a, b) => a - b)[Math.floor(took.length / 2)];
      at("rate").dataset.rate = String(rate);
      at("rate").textContent =
        `Images of ${about.data}, ${width} x ${height} px. ` +
        (rate < LIVE_FROM ? `${rate.toFixed(1)} answers a second: the model is asked when you let go.` : `${rate.toFixed(0)} answers a second.`);
      document.documentElement.dataset.ready = "yes";
    }

    /** @type {(k: number, padding: string, found: Answer) => void} */
    function say(k, padding, found) {
      at(`who-${k}`).textContent = k ? `padding ${padding}, same weights` : "as it is";
      const items = found.classes.map((each) => {
        const item = document.createElement("li");
        for (const text of [each.name, `${(100 * each.probability).toFixed(1)} %`, each.logit.toFixed(2)]) {
          const span = document.createElement("span");
          span.textContent = text;
          item.append(span);
        }
        const bar = document.createElement("div");
        bar.className = "bar";
        bar.append(document.createElement("div"));
        /** @type {HTMLElement} */ (bar.firstElementChild).style.width = `${100 * each.probability}%`;
        item.append(bar);
        return item;
      });
      at(`scores-${k}`).replaceChildren(...items);
      at(`loss-${k}`).textContent =
        "Class, probability, logit." + (found.loss === null ? "" : ` It is ${found.label}: loss ${found.loss.toFixed(3)} nats.`);
      const best = found.classes[0];
      Object.assign(at(`says-${k}`).dataset, {
        dx: found.dx,
        dy: found.dy,
        padding,
        predicted: best.number,
        probability: best.probability,
        logit: best.logit,
      });
      at(`maps-${k}`).hidden = !found.maps;
      if (found.maps) {
        drawMaps(at(`maps-${k}`), found.maps);
      }
      if (!k) {
        at("status").textContent = held ? "" : `${best.name}, ${(100 * best.probability).toFixed(1)} %`;
      }
    }

    const palette = bytes(about.palette);

    /** @type {(figure: HTMLElement, maps: Maps) => void} */
    function drawMaps(figure, { cells, low, high, n_filters }) {
      const canvas = /** @type {HTMLCanvasElement} */ (figure.querySelector("canvas"));
      const [h, w] = cells.shape;
      canvas.width = w;
      canvas.height = h;
      const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
      const drawn = context.createImageData(w, h);
      bytes(cells).forEach((cell, k) => {
        // 0 is a gap, which stays transparent.
        drawn.data.set([...palette.subarray(3 * cell, 3 * cell + 3), cell ? 255 : 0], 4 * k);
      });
      context.putImageData(drawn, 0, 0);
      const layer = select("layer").value;
      canvas.setAttribute("aria-label", `Feature maps of ${layer}`);
      /** @type {HTMLElement} */ (figure.querySelector("figcaption")).textContent =
        `Filters of ${layer}, the first of ${n_filters}, on one scale from ${low.toFixed(2)} to ${high.toFixed(2)}`;
    }

    /** @type {(toX: number, toY: number) => void} */
    function moveTo(toX, toY) {
      const [x, y] = [Math.round(toX), Math.round(toY)];
      dx = Math.min(width, Math.max(-width, x));
      dy = Math.min(height, Math.max(-height, y));
      draw();
      heatmaps.forEach((map) => map?.select(cellOf(map.grid)));
      if (!held || Number(at("rate").dataset.rate) >= LIVE_FROM) {
        answer();
      }
    }

    // ---- where it flips

    /** @typedef {{dys: number[], dxs: number[]}} Grid */
    /** @type {((ReturnType<typeof ShiftlensHeatmap.create> & {grid: Grid}) | null)[]} */
    const heatmaps = [null, null];

    /** @type {(grid: Grid) => {row: number, column: number} | null} */
    function cellOf({ dys, dxs }) {
      const [row, column] = [dys.indexOf(dy), dxs.indexOf(dx)];
      return row < 0 || column < 0 ? null : { row, column };
    }

    function forget() {
      sweeping += 1;
      heatmaps.forEach((map, k) => {
        map?.destroy();
        heatmaps[k] = null;
        at(`flips-${k}`).hidden = true;
        delete at(`flips-${k}`).dataset.done;
      });
      at("progress").hidden = true;
    }

    async function sweep() {
      forget();
      const mine = sweeping;
      const progress = /** @type {HTMLProgressElement} */ (at("progress"));
      progress.hidden = false;
      progress.value = 0;
      try {
        const asked = paddings();
        for (const [k, padding] of asked.entries()) {
          const response = await ask("sweep", JSON.stringify({ image, fill: select("fill").value, padding }));
          await read(k, response, (share) => {
            progress.value = (k + share) / asked.length;
          }, mine);
        }
      } catch (error) {
        fail(error);
      }
      if (mine === sweeping) {
        progress.hidden = true;
      }
    }

    /** @type {(k: number, response: Response, step: (share: number) => void, mine: number) => Promise<void>} */
    async function read(k, response, step, mine) {
      const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
      const decoder = new TextDecoder();
      let waiting = "";
      /** @type {any[]} */
      const lines = [];
      for (;;) {
        const { done, value } = await reader.read();
        if (mine !== sweeping) {
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
        step((lines.length - 1) / lines[0].dys.length);
      }
      const [grid, ...rows] = lines;
      if (rows.length !== grid.dys.length) {
        throw new Error("the sweep was not complete: is the server still running?");
      }
      drawFlips(k, grid, rows.flat());
    }

    /** @type {(k: number, grid: Grid, classes: number[]) => void} */
    function drawFlips(k, grid, classes) {
      const counts = new Map();
      classes.forEach((each) => counts.set(each, (counts.get(each) || 0) + 1));
      const unshifted = classes[grid.dys.indexOf(0) * grid.dxs.length + grid.dxs.indexOf(0)];
      const others = [...counts.keys()].filter((each) => each !== unshifted).sort((a, b) => counts.get(b) - counts.get(a));
      const rank = new Map([unshifted, ...others].map((each, place) => [each, Math.min(place, COLOURS.length - 1)]));
      const figure = at(`flips-${k}`);
      figure.hidden = false;
      const map = ShiftlensHeatmap.create(
        at(`map-${k}`),
        { ...grid, label: `Classes predicted at each shift, ${at(`who-${k}`).textContent}` },
        { onSelect: ({ row, column }) => moveTo(grid.dxs[column], grid.dys[row]) },
      );
      const colours = new Uint8Array(3 * 256);
      COLOURS.forEach((colour, place) => {
        [1, 3, 5].forEach((from, channel) => {
          colours[3 * place + channel] = parseInt(colour.slice(from, from + 2), 16);
        });
      });
      map.show({ values: classes.map((each) => rank.get(each) ?? 0), low: 0, high: 256, palette: colours, outline: null, boundaries: classes });
      heatmaps[k] = { ...map, grid };
      const words = [unshifted, ...others.slice(0, 4)].map(
        (each) => `${about.class_names[each] ?? each} ${((100 * counts.get(each)) / classes.length).toFixed(1)} %`,
      );
      /** @type {HTMLElement} */ (figure.querySelector("figcaption")).textContent =
        `The class predicted at each shift of at most half the image: ${words.join(", ")}. Click a cell to move there.`;
      figure.dataset.done = "yes";
    }

    // ---- controls

    /** @type {{id: number, x: number, y: number, dx: number, dy: number} | null} */
    let grip = null;
    frame.addEventListener("pointerdown", (event) => {
      if (event.button) {
        return;
      }
      frame.setPointerCapture(event.pointerId);
      grip = { id: event.pointerId, x: event.clientX, y: event.clientY, dx, dy };
      held = true;
      frame.classList.add("held");
    });
    frame.addEventListener("pointermove", (event) => {
      if (grip && grip.id === event.pointerId) {
        const scale = width / frame.getBoundingClientRect().width;
        const [x, y] = [grip.dx + (event.clientX - grip.x) * scale, grip.dy + (event.clientY - grip.y) * scale];
        if (Math.round(x) !== dx || Math.round(y) !== dy) {
          moveTo(x, y);
        }
      }
    });
    for (const name of /** @type {const} */ (["pointerup", "pointercancel"])) {
      frame.addEventListener(name, () => {
        if (grip) {
          grip = null;
          held = false;
          frame.classList.remove("held");
          answer();
        }
      });
    }
    frame.addEventListener("keydown", (event) => {
      const far = event.shiftKey ? FAR : 1;
      /** @type {Record<string, [number, number]>} */
      const moves = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far], Home: [-dx, -dy] };
      const move = moves[event.key];
      if (move) {
        event.preventDefault();
        moveTo(dx + move[0], dy + move[1]);
      }
    });
    at("home").addEventListener("click", () => moveTo(0, 0));
    at("sweep").addEventListener("click", sweep);
    at("image").addEventListener("change", () => show(/** @type {HTMLInputElement} */ (at("image")).value).catch(fail));
    at("photo").addEventListener("change", () => {
      const file = /** @type {HTMLInputElement} */ (at("photo")).files?.[0];
      if (file) {
        take(file);
      }
    });
    select("fill").addEventListener("change", () => {
      forget();
      repaint();
      draw();
      answer();
    });
    select("padding").addEventListener("change", () => {
      forget();
      answer();
    });
    select("layer").addEventListener("change", answer);
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      const file = event.dataTransfer?.files[0];
      if (file) {
        take(file);
      }
    });
    document.addEventListener("paste", (event) => {
      const file = event.clipboardData?.files[0];
      if (file) {
        take(file);
      }
    });
    at("model-1").hidden = about.paddings.length < 2;
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => heatmaps.forEach((map) => map?.redraw()));
    await show("0");
  }

  ask("about")
    .then((response) => response.json())
    .then(begin)
    .catch(fail);
})();
