// A heat map over shifts (dx, dy): one canvas, mouse, touch and keyboard. It knows nothing of the page around it.
//
//   const map = ShiftlensHeatmap.create(element, { dys, dxs, label }, { onHover, onSelect });
//   map.show({ values, low, high, palette, outline, marked });   // values: (dy, dx) numbers, nan for none
//   map.select({ row, column });    map.circle(6);    map.circle(null);    map.redraw();    map.destroy();
//
// dys, dxs    shifts in px, ascending; dx to the right, dy downwards, as the picture moves
// palette     256 x 3 bytes; outline, marked: (dy, dx) of 0 and 1, lines are drawn around the ones, or null
// boundaries  (dy, dx) whole numbers: lines are drawn between cells that differ, or left out
// onHover     called with { row, column } under the pointer or the keyboard's cursor, or null when the pointer leaves
// onSelect    called with { row, column } after a click, a tap, Enter or space
//
// Colours of axes and lines come from the element's CSS: color, --heatmap-line, --heatmap-missing.
"use strict";

/** @typedef {{row: number, column: number}} Cell */
/**
 * @typedef {object} Shown
 * @property {ArrayLike<number>} values
 * @property {number} low
 * @property {number} high
 * @property {Uint8Array} palette
 * @property {ArrayLike<number> | null} outline
 * @property {ArrayLike<number> | null} [marked]
 * @property {ArrayLike<number> | null} [boundaries]
 */
/** @typedef {{left: number, top: number, width: number, height: number, ratio: number}} Area */

const ShiftlensHeatmap = (() => {
  const MARGIN = { left: 44, right: 8, top: 8, bottom: 40 };
  const TICK_STEPS = [1, 2, 4, 8, 16, 32, 64, 128, 256];

  /** @param {number[]} axis */
  function cellSize(axis) {
    return axis.length > 1 ? axis[1] - axis[0] : 1;
  }

  /** @type {(axis: number[], pixels: number) => number[]} */
  function ticks(axis, pixels) {
    // Whole numbers around 0, as many as fit without touching.
    const span = axis[axis.length - 1] - axis[0];
    const room = Math.max(2, Math.floor(pixels / 36));
    const step = TICK_STEPS.find((each) => span / each <= room) || 512;
    const found = [];
    for (let at = Math.ceil(axis[0] / step) * step; at <= axis[axis.length - 1]; at += step) {
      found.push(at);
    }
    return found;
  }

  /** @type {(canvas: HTMLCanvasElement) => CanvasRenderingContext2D} */
  const pen = (canvas) => /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));

  /**
   * @param {HTMLElement} element
   * @param {{dys: number[], dxs: number[], label: string}} axes
   * @param {{onHover?: (cell: Cell | null) => void, onSelect?: (cell: Cell) => void}} callbacks
   */
  function create(element, { dys, dxs, label }, callbacks = {}) {
    const canvas = document.createElement("canvas");
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-roledescription", "heat map");
    canvas.setAttribute("aria-label", label);
    canvas.className = "heatmap-canvas";
    element.append(canvas);
    const ny = dys.length;
    const nx = dxs.length;
    const origin = { row: dys.indexOf(0), column: dxs.indexOf(0) };
    const picture = document.createElement("canvas");
    picture.width = nx;
    picture.height = ny;
    /** @type {Shown | null} */
    let shown = null;
    let cursor = { ...origin };
    /** @type {Cell | null} */
    let selected = null;
    /** @type {number | null} */
    let radius = null;
    /** @type {Area} */
    let area = { left: MARGIN.left, top: MARGIN.top, width: 0, height: 0, ratio: 1 };

    /** @param {Shown} shown */
    function paint(shown) {
      const context = pen(picture);
      const image = context.createImageData(nx, ny);
      const { values, low, high, palette } = shown;
      const missing = rgb(getComputedStyle(element).getPropertyValue("--heatmap-missing") || "#d9d9d9");
      for (let k = 0; k < ny * nx; k += 1) {
        const value = values[k];
        /** @type {ArrayLike<number>} */
        let colour = missing;
        if (Number.isFinite(value)) {
          const place = Math.min(255, Math.max(0, Math.floor(((value - low) / (high - low)) * 256)));
          colour = palette.subarray(3 * place, 3 * place + 3);
        }
        image.data.set([colour[0], colour[1], colour[2], 255], 4 * k);
      }
      context.putImageData(image, 0, 0);
    }

    /** @param {string} text */
    function rgb(text) {
      const hex = text.trim().replace("#", "");
      return [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));
    }

    function layOut() {
      const width = Math.max(200, element.clientWidth);
      const across = width - MARGIN.left - MARGIN.right;
      const spanX = nx * cellSize(dxs);
      const spanY = ny * cellSize(dys);
      // A grid of one row or column would be a line: its cells are drawn as wide as the picture needs them.
      const flat = Math.min(nx, ny) * 8 < Math.max(nx, ny);
      const down = flat ? Math.min(across, 220) : Math.min((across * spanY) / spanX, 1.4 * across);
      const ratio = window.devicePixelRatio || 1;
      const height = down + MARGIN.top + MARGIN.bottom;
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
      area = { left: MARGIN.left, top: MARGIN.top, width: across, height: down, ratio };
    }

    /** @param {number} dx */
    const xOf = (dx) => area.left + ((dx - dxs[0]) / cellSize(dxs) + 0.5) * (area.width / nx);
    /** @param {number} dy */
    const yOf = (dy) => area.top + ((dy - dys[0]) / cellSize(dys) + 0.5) * (area.height / ny);

    function draw() {
      if (!shown || !area.width) {
        return;
      }
      const style = getComputedStyle(element);
      const context = pen(canvas);
      context.setTransform(area.ratio, 0, 0, area.ratio, 0, 0);
      context.clearRect(0, 0, canvas.width, canvas.height);
      context.imageSmoothingEnabled = false;
      context.drawImage(picture, area.left, area.top, area.width, area.height);
      axes(context, style);
      context.save();
      context.beginPath();
      context.rect(area.left, area.top, area.width, area.height);
      context.clip();
      if (shown.outline) {
        edges(context, shown.outline, "#ffffff", 3.2);
        edges(context, shown.outline, "#000000", 1.4);
      }
      if (shown.marked) {
        edges(context, shown.marked, "#000000", 1.2);
      }
      if (shown.boundaries) {
        edges(context, shown.boundaries, "#000000", 1.2, false);
      }
      if (radius !== null) {
        ring(context, radius, "#000000", 3.4, []);
        ring(context, radius, "#ffffff", 1.8, [6, 4]);
      }
      cross(context);
      if (selected) {
        box(context, selected, "#ffffff", 4);
        box(context, selected, style.getPropertyValue("--heatmap-line") || "#d1003f", 2);
      }
      if (document.activeElement === canvas) {
        box(context, cursor, "#000000", 3);
        box(context, cursor, "#ffffff", 1.4);
      }
      context.restore();
    }

    /** @type {(context: CanvasRenderingContext2D, style: CSSStyleDeclaration) => void} */
    function axes(context, style) {
      context.fillStyle = style.color;
      context.strokeStyle = style.color;
      context.lineWidth = 1;
      context.font = "12px system-ui, sans-serif";
      context.textAlign = "center";
      context.textBaseline = "top";
      const bottom = area.top + area.height;
      for (const dx of ticks(dxs, area.width)) {
        context.fillText(String(dx).replace("-", "−"), xOf(dx), bottom + 6);
        context.fillRect(xOf(dx) - 0.5, bottom, 1, 4);
      }
      context.fillText("dx (px): image moved right →", area.left + area.width / 2, bottom + 23);
      context.textAlign = "right";
      context.textBaseline = "middle";
      for (const dy of ticks(dys, area.height)) {
        context.fillText(String(dy).replace("-", "−"), area.left - 7, yOf(dy));
        context.fillRect(area.left - 4, yOf(dy) - 0.5, 4, 1);
      }
      context.save();
      context.translate(10, area.top + area.height / 2);
      context.rotate(-Math.PI / 2);
      context.textAlign = "center";
      context.fillText("← dy (px): image moved down", 0, 0);
      context.restore();
    }

    /** @type {(context: CanvasRenderingContext2D, cells: ArrayLike<number>, colour: string, width: number, closed?: boolean) => void} */
    function edges(context, cells, colour, width, closed = true) {
      // Along the sides between cells of different value: a contour would cut their corners. Outside counts as 0;
      // where it is not `closed`, nothing is drawn along the map's own edge.
      /** @type {(row: number, column: number) => number} */
      const at = (row, column) => (row < 0 || column < 0 || row >= ny || column >= nx ? 0 : cells[row * nx + column]);
      const w = area.width / nx;
      const h = area.height / ny;
      context.beginPath();
      for (let row = 0; row <= ny; row += 1) {
        for (let column = 0; column <= nx; column += 1) {
          const x = area.left + column * w;
          const y = area.top + row * h;
          if (column < nx && (closed || (row > 0 && row < ny)) && at(row, column) !== at(row - 1, column)) {
            context.moveTo(x, y);
            context.lineTo(x + w, y);
          }
          if (row < ny && (closed || (column > 0 && column < nx)) && at(row, column) !== at(row, column - 1)) {
            context.moveTo(x, y);
            context.lineTo(x, y + h);
          }
        }
      }
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.stroke();
    }

    /** @type {(context: CanvasRenderingContext2D, radius: number, colour: string, width: number, dashes: number[]) => void} */
    function ring(context, radius, colour, width, dashes) {
      context.beginPath();
      context.setLineDash(dashes);
      const rx = (radius / cellSize(dxs)) * (area.width / nx);
      const ry = (radius / cellSize(dys)) * (area.height / ny);
      context.ellipse(xOf(0), yOf(0), rx, ry, 0, 0, 2 * Math.PI);
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.stroke();
      context.setLineDash([]);
    }

    /** @param {CanvasRenderingContext2D} context */
    function cross(context) {
      for (const { colour, width, length } of [
        { colour: "#ffffff", width: 3, length: 6 },
        { colour: "#000000", width: 1.4, length: 5 },
      ]) {
        context.beginPath();
        context.moveTo(xOf(0) - length, yOf(0));
        context.lineTo(xOf(0) + length, yOf(0));
        context.moveTo(xOf(0), yOf(0) - length);
        context.lineTo(xOf(0), yOf(0) + length);
        context.strokeStyle = colour;
        context.lineWidth = width;
        context.stroke();
      }
    }

    /** @type {(context: CanvasRenderingContext2D, cell: Cell, colour: string, width: number) => void} */
    function box(context, cell, colour, width) {
      const w = area.width / nx;
      const h = area.height / ny;
      // Small cells get a box that is large enough to be seen.
      const grow = Math.max(0, (9 - Math.min(w, h)) / 2);
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.strokeRect(
        area.left + cell.column * w - grow,
        area.top + cell.row * h - grow,
        w + 2 * grow,
        h + 2 * grow,
      );
    }

    /** @type {(event: MouseEvent) => Cell | null} */
    function cellAt(event) {
      const box = canvas.getBoundingClientRect();
      const column = Math.floor(((event.clientX - box.left - area.left) / area.width) * nx);
      const row = Math.floor(((event.clientY - box.top - area.top) / area.height) * ny);
      return row >= 0 && column >= 0 && row < ny && column < nx ? { row, column } : null;
    }

    /** @param {Cell | null} cell */
    function hover(cell) {
      if (callbacks.onHover) {
        callbacks.onHover(cell);
      }
    }

    /** @param {Cell} cell */
    function choose(cell) {
      cursor = { ...cell };
      selected = { ...cell };
      draw();
      if (callbacks.onSelect) {
        callbacks.onSelect({ ...cell });
      }
    }

    /** @type {{[name: string]: (event: any) => void}} */
    const listeners = {
      pointermove: (event) => hover(cellAt(event)),
      pointerleave: () => hover(null),
      click: (event) => {
        const cell = cellAt(event);
        if (cell) {
          choose(cell);
        }
      },
      focus: () => draw(),
      blur: () => draw(),
      keydown: (event) => {
        const far = event.shiftKey ? 5 : 1;
        /** @type {{[key: string]: [number, number]}} */
        const moves = {
          ArrowLeft: [0, -far],
          ArrowRight: [0, far],
          ArrowUp: [-far, 0],
          ArrowDown: [far, 0],
        };
        if (moves[event.key]) {
          const [down, across] = moves[event.key];
          cursor.row = Math.min(ny - 1, Math.max(0, cursor.row + down));
          cursor.column = Math.min(nx - 1, Math.max(0, cursor.column + across));
        } else if (event.key === "Home") {
          cursor = { ...origin };
        } else if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          choose(cursor);
          return;
        } else {
          return;
        }
        event.preventDefault();
        draw();
        hover({ ...cursor });
      },
    };
    for (const [name, listener] of Object.entries(listeners)) {
      canvas.addEventListener(name, listener);
    }

    function redraw() {
      layOut();
      if (shown) {
        paint(shown);
      }
      draw();
    }

    let width = 0;
    const observer = new ResizeObserver(() => {
      // Its own height follows from its width: only a new width is a reason to draw again.
      if (element.clientWidth !== width) {
        width = element.clientWidth;
        redraw();
      }
    });
    observer.observe(element);
    layOut();

    return {
      canvas,
      /** @param {Shown} next */
      show(next) {
        shown = next;
        redraw();
      },
      /** @param {Cell | null} cell */
      select(cell) {
        selected = cell ? { ...cell } : null;
        cursor = cell ? { ...cell } : cursor;
        draw();
      },
      /** @param {number | null} px */
      circle(px) {
        radius = px;
        draw();
      },
      // Where a cell's middle lies on the canvas, in CSS px.
      /** @type {(cell: Cell) => {x: number, y: number}} */
      centreOf: ({ row, column }) => ({ x: xOf(dxs[column]), y: yOf(dys[row]) }),
      redraw,
      destroy() {
        observer.disconnect();
        canvas.remove();
      },
    };
  }

  return { create };
})();
