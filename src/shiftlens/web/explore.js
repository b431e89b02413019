// The live page: an image is dragged, and the model answers from this machine.
//
// What tests may hold on to (K is 0 for the model as it is, 1 for the copy that pads otherwise):
//
//   html[data-ready="yes"]   set after the first answer
//   #frame                   the image: drag; arrow keys (Shift: 5 px), Home; data-dx, data-dy, data-image
//   #says-K                  data-dx, data-dy, data-predicted (class number), data-probability, data-logit, data-padding,
//                            data-answers: how many there have been
//   #model, #thumbnails, #image, #photo, #fill, #padding, #layer, #home, #sweep
//   #flips-K                 data-done="yes" when the small sweep is over; #map-K canvas
//   #rate                    data-rate: answers a second
//
// The page's address with #model=1 asks the second of the models that it offers.
"use strict";

/** @typedef {{name: string, rgb: number[] | null, rule: string}} FillChoice */
/**
 * @typedef {object} About
 * @property {string} model
 * @property {string} task
 * @property {string} data
 * @property {string} note
 * @property {number} n_images
 * @property {[number, number]} size
 * @property {string[]} class_names
 * @property {string[]} paddings
 * @property {FillChoice[]} fills
 * @property {{name: string, said: string}[]} layers
 * @property {{image: string, uri: string}[]} thumbnails
 */

(() => {
  const FAR = 5;
  const LIVE_FROM = 2; // answers a second; with fewer, the model is asked when the image is let go
  const MEASURED = 5;
  const MOST_STEPS = 200;
  const LINES = ["--line-1", "--line-2"];
  const FILLS = new Map([
    ["black", "black"],
    ["mean", "the model's mean colour"],
    ["edge", "edge: the border, repeated"],
    ["reflect", "reflect: mirrored"],
    ["symmetric", "symmetric: mirrored with the border"],
    ["wrap", "wrap: from the other side"],
  ]);
  /** @type {Record<string, string>} */
  const ON_THE_WAY = {
    classification: "Probability of the predicted class along the drag. Ring: the class flips",
    segmentation: "Pixels in view that keep their class along the drag, in per cent",
    detection: "Score of the best detection along the drag. Ring: the number of objects changes",
  };

  /** @type {<T extends HTMLElement>(id: string) => T} */
  const at = (id) => /** @type {any} */ (document.getElementById(id));
  /** @type {(value: number) => string} */
  const signed = (value) => (value > 0 ? `+${value}` : String(value).replace("-", "−"));
  const frame = /** @type {HTMLCanvasElement} */ (at("frame"));
  /** @type {(id: string) => HTMLSelectElement} */
  const select = (id) => at(id);

  const which = Number(new URLSearchParams(location.hash.slice(1)).get("model")) || 0;

  /** @type {(where: string, body?: BodyInit) => Promise<Response>} */
  async function ask(where, body) {
    const response = await fetch(`${which}/${where}`, body === undefined ? {} : { method: "POST", body });
    if (!response.ok) {
      throw new Error(await response.text());
    }
    return response;
  }

  /** @param {unknown} error */
  function fail(error) {
    at("problem").textContent = error instanceof Error ? error.message : String(error);
  }

  /** @param {About} about */
  async function begin(about) {
    const [height, width] = about.size;
    const isClassifier = about.task === "classification";
    let image = "0";
    let dx = 0;
    let dy = 0;
    /** @type {ReturnType<typeof ShiftlensPicture.of> | null} */
    let picture = null;
    let uri = "";
    let busy = false;
    let again = false;
    let held = false;
    let isFirst = true; // of its kind: the server prepares a copy of the net, or decodes an image
    let sweeping = 0;
    /** @type {number[]} */
    const took = [];
    /** @type {{values: number[], flips: boolean[], last: string}[]} */
    let way = [];
    let stood = [0, 0]; // the shift of its last step

    frame.width = width;
    frame.height = height;
    at("note").textContent = about.note;
    at("note").hidden = !about.note;
    at("facts").textContent = `${about.model}, a ${about.task === "classification" ? "classifier" : about.task === "detection" ? "detector" : "segmenter"}. Input: ${height} x ${width} px. Images: ${about.data}.`;
    /** @type {HTMLInputElement} */ (at("image")).max = String(about.n_images - 1);
    at("last").textContent = `of 0 to ${about.n_images - 1}`;
    at("numbered").hidden = about.n_images <= about.thumbnails.length;
    fillSelect("fill", about.fills.map(({ name }) => [name, FILLS.get(name) || name]), "black");
    fillSelect("padding", about.paddings.slice(1).map((name) => [name, name]), "symmetric");
    fillSelect("layer", about.layers.map(({ name, said }) => [name, said]), "");
    at("model-1").hidden = about.paddings.length < 2;
    at("sweep").hidden = !isClassifier;
    at("way-said").textContent = ON_THE_WAY[about.task] + (about.paddings.length > 1 ? ". Solid: the model as it is; dashed: the other padding" : "");

    /** @type {(id: string, names: string[][], chosen: string) => void} */
    function fillSelect(id, names, chosen) {
      for (const [name, text] of names) {
        const option = document.createElement("option");
        option.value = name;
        option.textContent = text;
        select(id).append(option);
      }
      select(id).value = chosen;
    }

    const paddings = () => (about.paddings.length > 1 ? [about.paddings[0], select("padding").value] : [about.paddings[0]]);

    const columns = [0, 1].map((k) =>
      ShiftlensAnswer.create(at(`says-${k}`), at(`maps-${k}`), {
        task: about.task,
        size: about.size,
        paint: (canvas, x, y) => picture?.draw(canvas, 0, x, y),
      }),
    );
    /** @type {number[]} */
    const colouring = []; // classes, in the order of their colours on both maps
    const flips = [0, 1].map((k) =>
      ShiftlensFlips.create(at(`flips-${k}`), at(`map-${k}`), {
        label: () => (k ? `padding ${select("padding").value}` : "the model as it is"),
        order: colouring,
        named: (each) => about.class_names[each] ?? String(each),
        moveTo,
      }),
    );
    const chart = ShiftlensWay.create(at("way"), about.task === "segmentation" ? "pixels kept" : "confidence");

    // ---- the image

    about.thumbnails.forEach((each) => {
      const [item, button, small] = [document.createElement("li"), document.createElement("button"), document.createElement("img")];
      small.src = each.uri;
      small.alt = `Image ${each.image}`;
      button.type = "button";
      button.dataset.image = each.image;
      button.append(small);
      button.addEventListener("click", () => show(each.image).catch(fail));
      item.append(button);
      at("thumbnails").append(item);
    });

    function repaint() {
      const fill = about.fills[select("fill").selectedIndex];
      const sprite = { uri, columns: 1, size: about.size, image_size: about.size, fill };
      picture = ShiftlensPicture.of(sprite, () => {
        draw();
        if (!isClassifier && document.documentElement.dataset.ready) {
          answer();
        }
      });
    }

    function draw() {
      picture?.draw(frame, 0, dx, dy);
      at("shift").textContent = moved();
      frame.setAttribute("aria-label", `${image.startsWith("photo") ? "your photo" : `image ${image}`}. ${at("shift").textContent}`);
      Object.assign(frame.dataset, { dx, dy, image });
      flips.forEach((each) => each.select(dx, dy));
    }

    function moved() {
      const ways = [dx ? `${Math.abs(dx)} px ${dx > 0 ? "right" : "left"}` : "", dy ? `${Math.abs(dy)} px ${dy > 0 ? "down" : "up"}` : ""];
      const said = ways.filter(Boolean).join(", ");
      return said ? `${said} (dx ${signed(dx)}, dy ${signed(dy)})` : "Not moved (dx 0, dy 0)";
    }

    /** @param {string} name */
    async function show(name) {
      uri = (await (await ask(`image/${name}`)).json()).uri;
      image = name;
      dx = 0;
      dy = 0;
      at("problem").textContent = "";
      for (const button of at("thumbnails").querySelectorAll("button")) {
        button.setAttribute("aria-pressed", String(button.dataset.image === name));
      }
      if (!name.startsWith("photo")) {
        /** @type {HTMLInputElement} */ (at("image")).value = name;
      }
      changed();
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
          const layer = select("layer").value;
          const asked = { image, dx, dy, fill: select("fill").value, paddings: paddings(), layer: layer || null };
          const told = ShiftlensAnswer.decode(await (await ask("answer", JSON.stringify(asked))).arrayBuffer());
          const said = told.columns.map((column, k) => columns[k].show(told, column, layer));
          step(told);
          at("status").textContent = held ? "" : said[0];
          at("problem").textContent = "";
          if (isFirst) {
            again = again || !took.length; // until then the rate is not known
          } else {
            timed(performance.now() - begun);
          }
          isFirst = false;
        } while (again);
      } catch (error) {
        fail(error);
      } finally {
        busy = false;
        document.documentElement.dataset.ready = "yes";
      }
    }

    /** @param {number} milliseconds */
    function timed(milliseconds) {
      took.push(milliseconds);
      if (took.length > MEASURED) {
        took.shift();
      }
      const rate = 1000 / [...took].sort((a, b) => a - b)[Math.floor(took.length / 2)];
      at("rate").dataset.rate = String(rate);
      at("rate").textContent =
        rate < LIVE_FROM
          ? `${rate.toFixed(1)} answers a second, too few to follow a drag: the model is asked when you let go.`
          : `${rate.toFixed(0)} answers a second.`;
    }

    /** @param {Told} told */
    function step(told) {
      if (way.length && told.dx === stood[0] && told.dy === stood[1]) {
        return;
      }
      stood = [told.dx, told.dy];
      told.columns.forEach((column, k) => {
        const best = column.classes[0];
        const value = 100 * (about.task === "segmentation" ? column.kept ?? 1 : best ? best.probability : 0);
        const key = isClassifier ? String(best.number) : String(column.boxes?.length ?? "");
        way[k] = way[k] || { values: [], flips: [], last: key };
        way[k].values.push(value);
        way[k].flips.push(way[k].last !== key);
        way[k].last = key;
        if (way[k].values.length > MOST_STEPS) {
          way[k].values.shift();
          way[k].flips.shift();
        }
      });
      const style = getComputedStyle(document.documentElement);
      chart.show(way.map((each, k) => ({ ...each, colour: style.getPropertyValue(LINES[k]).trim(), dashed: k > 0 })));
    }

    /** @type {(toX: number, toY: number) => void} */
    function moveTo(toX, toY) {
      dx = Math.min(width, Math.max(-width, Math.round(toX)));
      dy = Math.min(height, Math.max(-height, Math.round(toY)));
      at("invite").hidden = true;
      draw();
      if (!held || !took.length || Number(at("rate").dataset.rate) >= LIVE_FROM) {
        answer();
      }
    }

    // ---- where it flips

    // What was measured for the image, fill or padding before is void.
    function changed() {
      isFirst = true;
      way = [];
      sweeping += 1;
      flips.forEach((each) => each.forget());
      at("progress").hidden = true;
    }

    async function sweep() {
      colouring.length = 0;
      flips.forEach((each) => each.forget());
      sweeping += 1;
      const mine = sweeping;
      const progress = /** @type {HTMLProgressElement} */ (at("progress"));
      progress.hidden = false;
      progress.value = 0;
      try {
        const asked = paddings();
        for (const [k, padding] of asked.entries()) {
          const response = await ask("sweep", JSON.stringify({ image, fill: select("fill").value, padding }));
          const forward = (/** @type {number} */ share) => {
            progress.value = (k + share) / asked.length;
          };
          await flips[k].read(response, forward, () => mine !== sweeping);
        }
      } catch (error) {
        fail(error);
      }
      if (mine === sweeping) {
        progress.hidden = true;
      }
    }

    // ---- controls

    // `scale`: image pixels in one of the screen's, measured once: to ask for it in every move lays the page out again.
    /** @type {{id: number, x: number, y: number, dx: number, dy: number, scale: number} | null} */
    let grip = null;
    frame.addEventListener("pointerdown", (event) => {
      if (event.button) {
        return;
      }
      frame.setPointerCapture(event.pointerId);
      grip = { id: event.pointerId, x: event.clientX, y: event.clientY, dx, dy, scale: width / frame.getBoundingClientRect().width };
      held = true;
      way = [];
      frame.classList.add("held");
    });
    frame.addEventListener("pointermove", (event) => {
      if (grip && grip.id === event.pointerId) {
        const [x, y] = [grip.dx + (event.clientX - grip.x) * grip.scale, grip.dy + (event.clientY - grip.y) * grip.scale];
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
      changed();
      repaint();
      draw();
      answer();
    });
    select("padding").addEventListener("change", () => {
      changed();
      answer();
    });
    select("layer").addEventListener("change", () => {
      isFirst = true;
      answer();
    });
    document.addEventListener("dragover", (event) => event.preventDefault());
    for (const [name, data] of /** @type {const} */ ([["drop", "dataTransfer"], ["paste", "clipboardData"]])) {
      document.addEventListener(name, (event) => {
        event.preventDefault();
        const file = /** @type {any} */ (event)[data]?.files[0];
        if (file) {
          take(file);
        }
      });
    }
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      flips.forEach((each) => each.redraw());
      chart.redraw();
    });
    await show("0");
  }

  const models = /** @type {HTMLSelectElement | null} */ (document.getElementById("model"));
  if (models) {
    models.value = String(which);
    models.addEventListener("change", () => {
      location.hash = `model=${models.value}`;
      location.reload();
    });
  }
  ask("about")
    .then((response) => response.json())
    .then(begin)
    .catch(fail);
})();
