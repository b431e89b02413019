// An image that has moved in its frame, with the fill that the sweep used: for thumbnails and for the stage.
//
//   const picture = ShiftlensPicture.of(sprite, onLoad);
//   picture.draw(canvas, 3, dx, dy);    // image 3 of the sprite, scaled to the canvas's own width and height
//   picture.ready();                    // false until the sprite has been decoded; onLoad is called then
"use strict";

/**
 * @typedef {object} Sprite
 * @property {string} uri
 * @property {number} columns images side by side
 * @property {[number, number]} size height and width of each in the sprite
 * @property {[number, number]} image_size height and width of the net's input, which shifts are px of
 * @property {{rgb: number[] | null, rule: string}} fill a colour, or the name of an index rule
 */

const ShiftlensPicture = (() => {
  /** @type {(value: number, n: number) => number} */
  const within = (value, n) => ((value % n) + n) % n;

  // Which row or column of the image is seen at a position outside it, for any distance.
  /** @type {Record<string, (k: number, n: number) => number>} */
  const RULES = {
    edge: (k, n) => Math.min(Math.max(k, 0), n - 1),
    wrap: within,
    symmetric: (k, n) => Math.min(within(k, 2 * n), 2 * n - 1 - within(k, 2 * n)),
    reflect: (k, n) => (n < 2 ? 0 : n - 1 - Math.abs(n - 1 - within(k, 2 * n - 2))),
  };

  /**
   * For each of the `size` places of a drawn side, which place of the unshifted one stands there.
   * @param {number} size
   * @param {number} full
   * @param {number} shift
   * @param {(k: number, n: number) => number} rule
   */
  function sources(size, full, shift, rule) {
    const factor = size / full;
    return Array.from({ length: size }, (_, k) => {
      const seen = rule(Math.floor((k + 0.5) / factor) - shift, full);
      return Math.min(size - 1, Math.floor((seen + 0.5) * factor));
    });
  }

  /**
   * @param {Sprite} sprite
   * @param {() => void} onLoad
   */
  function of(sprite, onLoad) {
    const image = new Image();
    const [h, w] = sprite.size;
    const [imageH, imageW] = sprite.image_size;
    const { rgb, rule } = sprite.fill;
    // The last unshifted image that an index rule was applied to: reading pixels back is slow.
    let kept = { place: -1, width: 0, pixels: new Uint32Array(0) };
    image.addEventListener("load", onLoad);
    image.src = sprite.uri;
    const ready = () => image.complete && image.naturalWidth > 0;

    /** @type {(context: CanvasRenderingContext2D, place: number, x: number, y: number) => void} */
    function put(context, place, x, y) {
      const { width, height } = context.canvas;
      const left = (place % sprite.columns) * w;
      const top = Math.floor(place / sprite.columns) * h;
      context.imageSmoothingEnabled = w < imageW;
      context.drawImage(image, left, top, w, h, x, y, width, height);
    }

    /** @type {(context: CanvasRenderingContext2D, place: number, dx: number, dy: number) => void} */
    function byRule(context, place, dx, dy) {
      const { width, height } = context.canvas;
      if (kept.place !== place || kept.width !== width) {
        put(context, place, 0, 0);
        const still = context.getImageData(0, 0, width, height);
        kept = { place, width, pixels: new Uint32Array(still.data.buffer) };
      }
      const moved = context.createImageData(width, height);
      const out = new Uint32Array(moved.data.buffer);
      const columns = sources(width, imageW, dx, RULES[rule]);
      sources(height, imageH, dy, RULES[rule]).forEach((row, k) => {
        columns.forEach((column, l) => {
          out[k * width + l] = kept.pixels[row * width + column];
        });
      });
      context.putImageData(moved, 0, 0);
    }

    return {
      ready,
      /** @type {(canvas: HTMLCanvasElement, place: number, dx: number, dy: number) => void} */
      draw(canvas, place, dx, dy) {
        const context = canvas.getContext("2d", { willReadFrequently: true });
        if (!context) {
          return;
        }
        const { width, height } = canvas;
        if (rgb) {
          context.fillStyle = `rgb(${rgb.join(",")})`;
          context.fillRect(0, 0, width, height);
        }
        if (!ready()) {
          return;
        }
        if (rgb) {
          put(context, place, Math.round((dx * width) / imageW), Math.round((dy * height) / imageH));
        } else {
          byRule(context, place, dx, dy);
        }
      },
    };
  }

  return { of };
})();
