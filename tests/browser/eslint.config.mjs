// What the scripts under src/shiftlens/web/ are held to; `tests/browser/test_scripts.py` runs it where eslint is at hand.
const ours = [
  "ShiftlensPage", "ShiftlensHeatmap", "ShiftlensPicture", "ShiftlensTable", "ShiftlensWay",
  "ShiftlensParts", "ShiftlensKept", "ShiftlensClasses", "ShiftlensOutputs",
  "ShiftlensAnswer", "ShiftlensFlips",
];
const theirs = [
  "Plotly", "document", "window", "location", "history", "navigator", "performance", "atob", "Blob", "Response", "Image",
  "DecompressionStream", "fetch", "TextDecoder", "URLSearchParams", "ResizeObserver", "IntersectionObserver", "getComputedStyle",
  "requestAnimationFrame", "cancelAnimationFrame", "clearTimeout", "queueMicrotask", "console",
];

export default [
  {
    languageOptions: {
      ecmaVersion: 2023,
      sourceType: "script",
      globals: Object.fromEntries([...ours, ...theirs].map((name) => [name, "readonly"])),
    },
    rules: {
      "constructor-super": "error",
      eqeqeq: "error",
      "no-cond-assign": "error",
      "no-const-assign": "error",
      "no-constant-condition": "error",
      "no-dupe-args": "error",
      "no-dupe-else-if": "error",
      "no-dupe-keys": "error",
      "no-eval": "error",
      "no-fallthrough": "error",
      "no-implied-eval": "error",
      "no-loss-of-precision": "error",
      "no-self-assign": "error",
      "no-self-compare": "error",
      "no-shadow-restricted-names": "error",
      "no-undef": "error",
      "no-unreachable": "error",
      "no-unsafe-negation": "error",
      "no-unused-vars": ["error", { vars: "local" }],
      "no-use-before-define": ["error", { functions: false, variables: false }],
      "no-var": "error",
      "prefer-const": "error",
      strict: ["error", "global"],
      "use-isnan": "error",
      "valid-typeof": "error",
    },
  },
];
