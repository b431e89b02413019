// A share along the way that an image was dragged: one line a model, a ring where the answer changes.
//
//   const chart = ShiftlensWay.create(element, "confidence");
//   chart.show([{ values, flips, colour, dashed }]);   // values: per cent, one a step; flips: true where it changes
//
// Colours of axes and lines come from the element's CSS: color, --grid.
"use strict";

/** @typedef {{values: number[], flips: boolean[], colour: string, dashed: boolean}} Line */

const ShiftlensWay = (() => {
  const MARGIN = { left: 40, right: 10, top: 10, bottom: 38 };
  const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500];
  const LEAST_STEPS = 10;

  /** @type {(text: string) => string} */
  const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

  /** @type {(element: HTMLElement, called: string) => {canvas: HTMLCanvasElement, redraw: () => void, show: (lines: Line[]) => void}} */
  function create(element, called) {
    const canvas = document.createElement("canvas");
    canvas.className = "way-canvas";
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${capital(called)} along the way that the image was dragged`);
    element.append(canvas);
    /** @type {Line[]} */
    let shown = [];

    function draw() {
      const context = canvas.getContext("2d");
      const width = element.clientWidth;
      const height = element.clientHeight;
      if (!context || !width) {
        return;
      }
      const ratio = window.devicePixelRatio || 1;
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      const style = getComputedStyle(element);
      const n = Math.max(LEAST_STEPS, ...shown.map((line) => line.values.length - 1));
      /** @type {(step: number) => number} */
      const x = (step) => MARGIN.left + (step / n) * (width - MARGIN.left - MARGIN.right);
      /** @type {(value: number) => number} */
      const y = (value) => MARGIN.top + (1 - value / 100) * (height - MARGIN.top - MARGIN.bottom);
      axes(context, style, n, x, y);
      for (const line of shown) {
        curve(context, line, x, y);
      }
    }

    /** @type {(context: CanvasRenderingContext2D, style: CSSStyleDeclaration, n: number, x: (step: number) => number, y: (value: number) => number) => void} */
    function axes(context, style, n, x, y) {
      context.font = "12px system-ui, sans-serif";
      context.fillStyle = style.color;
      context.strokeStyle = style.getPropertyValue("--grid");
      context.lineWidth = 1;
      context.textAlign = "right";
      context.textBaseline = "middle";
      for (const value of [0, 50, 100]) {
        context.beginPath();
        context.moveTo(x(0), y(value));
        context.lineTo(x(n), y(value));
        context.stroke();
        context.fillText(String(value), x(0) - 6, y(value));
      }
      context.textAlign = "center";
      context.textBaseline = "top";
      const room = Math.max(2, Math.floor((x(n) - x(0)) / 40));
      const step = STEPS.find((each) => n / each <= room) || 1000;
      for (let at = 0; at <= n; at += step) {
        context.fillText(String(at), x(at), y(0) + 5);
      }
      context.fillText("steps along the way", (x(0) + x(n)) / 2, y(0) + 21);
      context.save();
      context.translate(9, (y(0) + y(100)) / 2);
      context.rotate(-Math.PI / 2);
      context.textBaseline = "middle";
      context.fillText(`${called}, %`, 0, 0);
      context.restore();
    }

    /** @type {(context: CanvasRenderingContext2D, line: Line, x: (step: number) => number, y: (value: number) => number) => void} */
    function curve(context, { values, flips, colour, dashed }, x, y) {
      context.strokeStyle = colour;
      context.fillStyle = colour;
      context.lineWidth = 2;
      context.setLineDash(dashed ? [5, 4] : []);
      context.beginPath();
      values.forEach((value, k) => (k ? context.lineTo(x(k), y(value)) : context.moveTo(x(k), y(value))));
      context.stroke();
      context.setLineDash([]);
      values.forEach((value, k) => {
        const last = k === values.length - 1;
        if (flips[k] || last) {
          context.beginPath();
          context.arc(x(k), y(value), last ? 3 : 5, 0, 2 * Math.PI);
          if (flips[k]) {
            context.stroke();
          } else {
            context.fill();
          }
        }
      });
    }

    new ResizeObserver(draw).observe(element);
    return {
      canvas,
      redraw: draw,
      /** @param {Line[]} lines */
      show(lines) {
        shown = lines;
        draw();
      },
    };
  }

  return { create };
})();
