// What the page holds as JSON, read once for all its scripts.
"use strict";

const ShiftlensPage = JSON.parse(document.getElementById("page-data")?.textContent || "null");
