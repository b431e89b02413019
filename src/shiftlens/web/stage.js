// The stage: an image that the reader drags, and what the sweep says at each shift. With two models, both under one drag.
//
// What tests and other scripts may hold on to (M is the number of the model, 0 or 1):
//
//   #stage[data-ready="yes"]      set when it can be dragged; data-played="yes" when the opening move is over
//   #stage-frame                  the image: drag; arrow keys (Shift: 5 steps), Home; data-image (its position in the
//                                 source), data-dx, data-dy
//   #stage-says-M                 data-predicted (class number), data-confidence (per cent), data-loss (nats, or "");
//                                 of masks and boxes see stage_outputs.js
//   #stage-map-M canvas           which class is predicted where, or a metric: click a cell to move the image there
//   #stage-way                    data-steps, data-values: per cent of model 0 along the way, from its start to now
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

  const MOST_STEPS = 400;
  const FAR = 5;
  const SPOKEN_AFTER = 500;

  const { at } = ShiftlensParts;
  /** @type {(name: string) => string} */
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  /** @param {StageTable} table */
  function begin(table) {
    const frame = /** @type {HTMLCanvasElement} */ (at("stage-frame"));
    const [height, width] = data.sprite.image_size;
    // The image to drag and, where two models have masks or boxes, one more for each of them.
    const frames = [frame, .../** @type {NodeListOf<HTMLCanvasElement>} */ (document.querySelectorAll(".stage-copy"))];
    for (const each of frames) {
      each.width = width;
      each.height = height;
      each.classList.toggle("smooth", data.sprite.size[1] < width || data.kind !== "classes");
    }
    const picture = ShiftlensPicture.of(data.sprite, () => {
      drawFrame();
      drawStrip();
    });
    const metric = data.models[0].metric;
    const what = metric ? metric.called : "confidence";
    const chart = ShiftlensWay.create(at("stage-way"), what);
    const maps = data.models.map((_, model) =>
      ShiftlensHeatmap.create(
        at(`stage-map-${model}`),
        {
          dys: data.dys,
          dxs: data.dxs,
          label:
            (metric
              ? `${what} of ${data.models[model].name} for the image over all shifts. `
              : `Classes that ${data.models[model].name} predicts for the image over all shifts. `) +
            "Arrow keys move by a cell, with Shift by five, Home to (0, 0); Enter moves the image there." +
            (metric ? "" : " The list after it has the shares."),
        },
        {
          onSelect: (/** @type {Cell} */ cell) => {
            stop();
            moveTo(cell);
          },
        },
      ),
    );
    const view = metric
      ? ShiftlensOutputs.create(data, table, maps, () => show())
      : ShiftlensClasses.create(data, table, maps);
    /** @type {(image: number) => string} */
    const named = (image) => `image ${data.position[image]}${view.named(image)}`;
    let image = data.groups[0].images[0];
    /** @type {Cell} */
    let cell = { ...table.origin };
    /** @type {Cell[]} */
    let way = [{ ...table.origin }];
    let asked = 0;
    let spoken = 0;

    // ---- what is shown

    function drawFrame() {
      for (const each of frames) {
        picture.draw(each, image, data.dxs[cell.column], data.dys[cell.row]);
      }
      view.draw(image, cell);
    }

    function drawStrip() {
      for (const button of at("stage-images").querySelectorAll("button")) {
        const canvas = /** @type {HTMLCanvasElement} */ (button.firstElementChild);
        picture.draw(canvas, Number(button.dataset.place), 0, 0);
      }
    }

    function drawWay() {
      const lines = data.models.map((_, model) => {
        const said = way.map((each) => view.curve(model, image, each));
        return {
          values: said.map((each) => each.value),
          flips: said.map((each, k) => k > 0 && each.mark !== said[k - 1].mark),
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
      const words = view.say(image, cell);
      const text = table.placed(cell);
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
        at("stage-status").textContent = `${text}: ${words.join("; ")}`;
      }, SPOKEN_AFTER);
    }

    // ---- another image

    function showImage() {
      const words = view.show(image);
      for (const button of at("stage-images").querySelectorAll("button")) {
        button.setAttribute("aria-pressed", String(Number(button.dataset.place) === image));
      }
      const name = named(image);
      const begin = words.length > 1 ? "\n" : " ";
      at("stage-about").textContent = `${name[0].toUpperCase()}${name.slice(1)}:${begin}${words.join("\n")}`;
      show();
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

    for (const each of frames) {
      each.addEventListener("pointerdown", (event) => {
        if (event.button) {
          return;
        }
        stop();
        each.setPointerCapture(event.pointerId);
        held = { id: event.pointerId, x: event.clientX, y: event.clientY, cell: { ...cell } };
        each.classList.add("held");
        startAt(cell);
        show();
      });
      each.addEventListener("pointermove", (event) => {
        if (!held || held.id !== event.pointerId) {
          return;
        }
        const scale = width / each.getBoundingClientRect().width;
        const to = table.cellOf(
          data.dxs[held.cell.column] + (event.clientX - held.x) * scale,
          data.dys[held.cell.row] + (event.clientY - held.y) * scale,
        );
        if (to.row !== cell.row || to.column !== cell.column) {
          moveTo(to);
        }
      });
      for (const name of /** @type {const} */ (["pointerup", "pointercancel"])) {
        each.addEventListener(name, () => {
          if (held) {
            held = null;
            each.classList.remove("held");
            note();
          }
        });
      }
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
      const towards = view.towards(image) || inGrid({ row: table.origin.row, column: table.origin.column + 8 });
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

  ShiftlensTable.opened(data).then(begin, () => {
    // A browser from before 2023: the stage needs DecompressionStream.
    stage.hidden = true;
    stage.classList.remove("live");
    stage.style.display = "none";
  });
})();
