// The stage: an image that the reader drags, and what the sweep says at each shift. With two models, both under one drag.
//
// What tests and other scripts may hold on to (M is the number of the model, 0 or 1):
//
//   #stage[data-ready="yes"]      set when it can be dragged; data-played="yes" when the opening move is over
//   #stage-frame                  the image: drag; arrow keys (Shift: 5 steps), Home; data-image (its position in the
//                                 source), data-dx, data-dy
//   #stage-says-M                 data-predicted (class number), data-confidence (per cent), data-loss (nats, or "")
//   #stage-map-M canvas           which class is predicted where: click a cell to move the image there
//   #stage-way                    data-steps, data-values: confidence of model 0 along the way, from its start to now
//   #stage-group, #stage-images   which images; button[data-image]
//   #stage-home, #stage-play, #stage-copy
//
// A link to one image and shift is the page's address with #image=17&dx=3&dy=-2.
"use strict";

(() => {
  const stage = document.getElementById("stage");
  /** @type {StageData} */
  const data = ShiftlensPage.stage;
  if (!stage) {
    return;
  }

  // Okabe and Ito's colours, safe for colour-blind readers: the first is that of the true class, the last of all the rest.
  const COLOURS = ["#56b4e9", "#e69f00", "#cc79a7", "#009e73", "#f0e442", "#d55e00", "#0072b2", "#999999"];
  const OTHERS = COLOURS.length - 1;
  const MOST_STEPS = 400;
  const FAR = 5;
  const SPOKEN_AFTER = 500;

  /** @type {<T extends HTMLElement>(id: string) => T} */
  const at = (id) => /** @type {any} */ (document.getElementById(id));
  /** @type {(value: number) => string} */
  const signed = (value) => (value > 0 ? `+${value}` : String(value).replace("-", "−"));
  /** @type {(which: number) => string} */
  const called = (which) => (which < data.class_names.length ? data.class_names[which] : String(which));
  /** @type {(cell: Cell) => string} */
  const placed = ({ row, column }) => `dx ${signed(data.dxs[column])}, dy ${signed(data.dys[row])} px`;
  /** @type {(image: number) => string} */
  const named = (image) => `image ${data.position[image]}${data.label ? ` (${called(data.label[image])})` : ""}`;
  /** @type {(name: string) => string} */
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  /** @param {Awaited<ReturnType<typeof ShiftlensTable.opened>>} table */
  function begin(table) {
    const frame = /** @type {HTMLCanvasElement} */ (at("stage-frame"));
    const [height, width] = data.sprite.image_size;
    frame.width = width;
    frame.height = height;
    frame.classList.toggle("smooth", data.sprite.size[1] < width);
    const picture = ShiftlensPicture.of(data.sprite, () => {
      drawFrame();
      drawStrip();
    });
    const chart = ShiftlensWay.create(at("stage-way"));
    const maps = data.models.map((_, model) =>
      ShiftlensHeatmap.create(
        at(`stage-map-${model}`),
        {
          dys: data.dys,
          dxs: data.dxs,
          label:
            `Classes that ${data.models[model].name} predicts for the image over all shifts. Arrow keys move by a cell, ` +
            "with Shift by five, Home to (0, 0); Enter moves the image there. The list after it has the shares.",
        },
        {
          onSelect: (/** @type {Cell} */ cell) => {
            stop();
            moveTo(cell);
          },
        },
      ),
    );
    let image = data.groups[0].images[0];
    /** @type {Cell} */
    let cell = { ...table.origin };
    /** @type {Cell[]} */
    let way = [{ ...table.origin }];
    /** @type {Map<number, number>} */
    let colours = new Map();
    let asked = 0;
    let spoken = 0;

    // ---- what is shown

    function drawFrame() {
      picture.draw(frame, image, data.dxs[cell.column], data.dys[cell.row]);
    }

    function drawStrip() {
      for (const button of at("stage-images").querySelectorAll("button")) {
        const canvas = /** @type {HTMLCanvasElement} */ (button.firstElementChild);
        picture.draw(canvas, Number(button.dataset.place), 0, 0);
      }
    }

    /** @param {number} model */
    function say(model) {
      const said = table.at(model, image, cell);
      const unshifted = table.at(model, image, table.origin).predicted;
      const box = at(`stage-says-${model}`);
      const colour = COLOURS[colours.get(said.predicted) ?? OTHERS];
      const put = (/** @type {string} */ part, /** @type {string} */ text) => {
        const element = box.querySelector(part);
        if (element) {
          element.textContent = text;
        }
      };
      put(".class", called(said.predicted));
      put(".judged", judged(said.predicted, unshifted));
      put(".confidence", `${said.confidence.toFixed(1)} %`);
      put(".loss", said.loss === null ? "" : `, loss ${ShiftlensTable.lossText(said.loss)} nats`);
      box.classList.toggle("wrong", data.label ? said.predicted !== data.label[image] : said.predicted !== unshifted);
      /** @type {HTMLElement} */ (box.querySelector(".chip")).style.background = colour;
      const bar = /** @type {HTMLElement} */ (box.querySelector(".bar div"));
      bar.style.background = colour;
      bar.style.width = `${said.confidence}%`;
      box.dataset.predicted = String(said.predicted);
      box.dataset.confidence = said.confidence.toFixed(1);
      box.dataset.loss = said.loss === null ? "" : String(said.loss);
      return said;
    }

    /** @type {(predicted: number, unshifted: number) => string} */
    function judged(predicted, unshifted) {
      if (!data.label) {
        return predicted === unshifted ? "as unshifted" : `unshifted: ${called(unshifted)}`;
      }
      return predicted === data.label[image] ? "right" : `wrong: it is ${called(data.label[image])}`;
    }

    function drawWay() {
      const lines = data.models.map((_, model) => {
        const said = way.map((each) => table.at(model, image, each));
        return {
          values: said.map((each) => each.confidence),
          flips: said.map((each, k) => k > 0 && each.predicted !== said[k - 1].predicted),
          colour: css(model ? "--line-2" : "--line-1"),
          dashed: model > 0,
        };
      });
      chart.show(lines);
      Object.assign(at("stage-way").dataset, {
        steps: way.length - 1,
        values: lines[0].values.map((value) => value.toFixed(1)).join(" "),
      });
    }

    function show() {
      drawFrame();
      const said = data.models.map((_, model) => say(model));
      const text = placed(cell);
      at("stage-shift").textContent = text;
      Object.assign(frame.dataset, {
        image: data.position[image],
        dx: data.dxs[cell.column],
        dy: data.dys[cell.row],
      });
      frame.setAttribute("aria-label", `${named(image)}, moved by ${text}`);
      // Maps and chart are drawn once a frame, however many events it has.
      if (!asked) {
        asked = requestAnimationFrame(() => {
          asked = 0;
          maps.forEach((map) => map.select(cell));
          drawWay();
        });
      }
      clearTimeout(spoken);
      spoken = window.setTimeout(() => {
        const words = said.map((each) => `${called(each.predicted)}, ${each.confidence.toFixed(1)} %`);
        at("stage-status").textContent = `${text}: ${words.join("; ")}`;
      }, SPOKEN_AFTER);
    }

    // ---- another image

    function showImage() {
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
      for (const button of at("stage-images").querySelectorAll("button")) {
        button.setAttribute("aria-pressed", String(Number(button.dataset.place) === image));
      }
      at("stage-about").textContent = about();
      show();
    }

    function about() {
      const words = data.models.map((each, model) => {
        const { share, nearest, length } = table.flips(model, image);
        const who = data.models.length > 1 ? `${each.name}: the` : "the";
        const first = nearest
          ? `; the nearest is ${length.toFixed(1)} px away (${placed(nearest)})`
          : ", and at no shift of the sweep";
        return (
          `${who} predicted class changes at ${(100 * share).toFixed(1)} % of the shifts of at most half the image ` +
          `(median image: ${(100 * each.median_share).toFixed(1)} %)${first}.`
        );
      });
      const name = named(image);
      return `${name[0].toUpperCase()}${name.slice(1)}:${words.length > 1 ? "\n" : " "}${words.join("\n")}`;
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
          const item = document.createElement("li");
          const chip = document.createElement("span");
          chip.className = "chip";
          chip.style.background = COLOURS[place];
          const truth = place === 0 ? (data.label ? " (true)" : " (unshifted)") : "";
          item.append(chip, `${name}${truth} ${((100 * counts[place]) / classes.length).toFixed(1)} %`);
          return item;
        });
      at(`stage-legend-${model}`).replaceChildren(...items);
    }

    function fillStrip() {
      const select = /** @type {HTMLSelectElement} */ (at("stage-group"));
      const group = data.groups[select.selectedIndex];
      const [h, w] = data.sprite.size;
      const items = group.images.map((place) => {
        const canvas = document.createElement("canvas");
        canvas.width = w;
        canvas.height = h;
        const button = document.createElement("button");
        button.type = "button";
        button.dataset.place = String(place);
        button.dataset.image = String(data.position[place]);
        button.setAttribute("aria-label", named(place));
        button.append(canvas);
        button.addEventListener("click", () => {
          stop();
          image = place;
          startAt(table.origin);
          showImage();
          note();
        });
        const item = document.createElement("li");
        item.append(button);
        return item;
      });
      at("stage-images").replaceChildren(...items);
      drawStrip();
    }

    // ---- moving

    /** @param {Cell} to */
    function startAt(to) {
      cell = { ...to };
      way = [{ ...to }];
    }

    /** @param {Cell} to */
    function moveTo(to) {
      way.push(...ShiftlensTable.way(cell, to));
      way = way.slice(-MOST_STEPS);
      cell = { ...to };
      show();
    }

    /** @param {{row: number, column: number}} wanted */
    function inGrid({ row, column }) {
      return {
        row: Math.min(data.dys.length - 1, Math.max(0, row)),
        column: Math.min(data.dxs.length - 1, Math.max(0, column)),
      };
    }

    // The address follows the image, so that a reload or a copied address shows it again.
    function note() {
      try {
        history.replaceState(null, "", link());
      } catch {
        // Where the page may not change its address, such as inside another page.
      }
    }

    const link = () =>
      ShiftlensTable.linkOf({ image: data.position[image], dx: data.dxs[cell.column], dy: data.dys[cell.row] });

    /** @type {{id: number, x: number, y: number, cell: Cell} | null} */
    let held = null;

    frame.addEventListener("pointerdown", (event) => {
      if (event.button) {
        return;
      }
      stop();
      frame.setPointerCapture(event.pointerId);
      held = { id: event.pointerId, x: event.clientX, y: event.clientY, cell: { ...cell } };
      frame.classList.add("held");
      startAt(cell);
      show();
    });
    frame.addEventListener("pointermove", (event) => {
      if (!held || held.id !== event.pointerId) {
        return;
      }
      const scale = width / frame.getBoundingClientRect().width;
      const to = table.cellOf(
        data.dxs[held.cell.column] + (event.clientX - held.x) * scale,
        data.dys[held.cell.row] + (event.clientY - held.y) * scale,
      );
      if (to.row !== cell.row || to.column !== cell.column) {
        moveTo(to);
      }
    });
    for (const name of /** @type {const} */ (["pointerup", "pointercancel"])) {
      frame.addEventListener(name, () => {
        if (held) {
          held = null;
          frame.classList.remove("held");
          note();
        }
      });
    }
    frame.addEventListener("keydown", (event) => {
      const far = event.shiftKey ? FAR : 1;
      /** @type {Record<string, [number, number]>} */
      const moves = { ArrowLeft: [0, -far], ArrowRight: [0, far], ArrowUp: [-far, 0], ArrowDown: [far, 0] };
      if (event.key === "Home") {
        home();
      } else if (moves[event.key]) {
        stop();
        const [down, across] = moves[event.key];
        moveTo(inGrid({ row: cell.row + down, column: cell.column + across }));
        note();
      } else {
        return;
      }
      event.preventDefault();
    });

    function home() {
      stop();
      startAt(table.origin);
      show();
      note();
    }

    // ---- the opening move: to the nearest shift at which the class changes, a little further, and back

    let playing = 0;

    function play() {
      halt();
      startAt(table.origin);
      const { nearest } = table.flips(0, image);
      const towards = nearest || inGrid({ row: table.origin.row, column: table.origin.column + 8 });
      const down = towards.row - table.origin.row;
      const across = towards.column - table.origin.column;
      const steps = Math.max(Math.abs(down), Math.abs(across), 1);
      const beyond = (steps + 3) / steps;
      const end = inGrid({
        row: table.origin.row + Math.round(down * beyond),
        column: table.origin.column + Math.round(across * beyond),
      });
      const out = ShiftlensTable.way(table.origin, end);
      const each = Math.min(220, 2200 / out.length);
      const rest = 1100;
      const cells = [...out, ...ShiftlensTable.way(end, table.origin)];
      const begun = performance.now();
      let done = 0;
      const step = () => {
        const past = performance.now() - begun;
        const away = Math.min(out.length, Math.floor(past / each));
        const back = Math.max(0, Math.floor((past - out.length * each - rest) / (each / 2)));
        const wanted = Math.min(cells.length, away + back);
        while (done < wanted) {
          moveTo(cells[done]);
          done += 1;
        }
        if (done < cells.length) {
          playing = requestAnimationFrame(step);
        } else {
          stop();
          at("stage-invite").hidden = false;
        }
      };
      at("stage-invite").hidden = true;
      playing = requestAnimationFrame(step);
    }

    function halt() {
      cancelAnimationFrame(playing);
      watching.disconnect();
    }

    function stop() {
      halt();
      at("stage-invite").hidden = true;
      at("stage").dataset.played = "yes";
    }

    const watching = new IntersectionObserver(
      (entries) => {
        if (entries.some((entry) => entry.isIntersecting)) {
          play();
        }
      },
      { threshold: 0.8 },
    );

    // ---- links

    function follow() {
      const wanted = ShiftlensTable.linked(location.hash);
      const place = wanted ? data.position.indexOf(wanted.image) : -1;
      if (!wanted || place < 0) {
        at("stage-copied").textContent = wanted ? `Image ${wanted.image} is not among those shown here.` : "";
        return false;
      }
      stop();
      image = place;
      startAt(table.cellOf(wanted.dx, wanted.dy));
      const group = data.groups.findIndex((each) => each.images.includes(place));
      /** @type {HTMLSelectElement} */ (at("stage-group")).selectedIndex = group;
      fillStrip();
      showImage();
      at("stage").scrollIntoView();
      return true;
    }

    async function copy() {
      stop();
      const address = location.href.replace(/#.*$/, "") + link();
      note();
      try {
        await navigator.clipboard.writeText(address);
        at("stage-copied").textContent = "Link copied.";
      } catch {
        at("stage-copied").textContent = `Copy this address: ${address}`;
      }
    }

    // ---- start

    const select = /** @type {HTMLSelectElement} */ (at("stage-group"));
    for (const group of data.groups) {
      const option = document.createElement("option");
      option.textContent = group.name;
      select.append(option);
    }
    select.addEventListener("change", () => {
      stop();
      image = data.groups[select.selectedIndex].images[0];
      startAt(table.origin);
      fillStrip();
      showImage();
      note();
    });
    at("stage-home").addEventListener("click", home);
    at("stage-play").addEventListener("click", play);
    at("stage-copy").addEventListener("click", copy);
    window.addEventListener("hashchange", follow);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      maps.forEach((map) => map.redraw());
      drawWay();
    });
    if (!follow()) {
      fillStrip();
      showImage();
      if (!window.matchMedia("(prefers-reduced-motion: reduce)").matches) {
        watching.observe(frame);
      }
    }
    at("stage").dataset.ready = "yes";
  }

  const PALETTE = new Uint8Array(3 * 256);
  COLOURS.forEach((colour, k) => {
    [1, 3, 5].forEach((from, channel) => {
      PALETTE[3 * k + channel] = parseInt(colour.slice(from, from + 2), 16);
    });
  });

  ShiftlensTable.opened(data).then(begin, () => {
    // A browser from before 2023: the stage needs DecompressionStream.
    stage.hidden = true;
    stage.classList.remove("live");
    stage.style.display = "none";
  });
})();
