// Tells the page around this one, if there is one, how high it is: a frame does not grow with what it shows.
"use strict";

(() => {
  if (window.parent === window) {
    return;
  }
  new ResizeObserver(() => {
    window.parent.postMessage({ stageHeight: Math.ceil(document.documentElement.getBoundingClientRect().height) }, "*");
  }).observe(document.documentElement);
})();
