// Finds JSON files that are none; see docs/index.md. No SDK: input.json in, files in /ci out.
"use strict";
const fs = require("node:fs");
const path = require("node:path");

const ci = process.env.PENSTOCK_CI_DIR || "/ci";
const given = JSON.parse(fs.readFileSync(path.join(ci, "input.json"), "utf8"));
const ignored = new Set(given.inputs.ignore);

function* filesBelow(folder) {
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    const full = path.join(folder, entry.name);
    if (entry.isDirectory() && !ignored.has(entry.name)) yield* filesBelow(full);
    else if (entry.isFile() && entry.name.endsWith(".json")) yield full;
  }
}

const files = [...filesBelow(given.workspace)];
const results = [];
files.forEach((file, at) => {
  console.log(`::progress::${Math.round((100 * (at + 1)) / files.length)} ${at + 1} of ${files.length}`);
  try {
    JSON.parse(fs.readFileSync(file, "utf8"));
  } catch (error) {
    const uri = path.relative(given.workspace, file).split(path.sep).map(encodeURIComponent).join("/");
    const message = { text: error.message };
    const locations = [{ physicalLocation: { artifactLocation: { uri } } }];
    results.push({ ruleId: "no-json", level: "error", message, locations });
    console.log(`${uri}: ${error.message}`);
  }
});

const write = (name, text) => fs.writeFileSync(path.join(ci, name), text);
const counted = { files: files.length, broken: results.length };
write("output.json", JSON.stringify(counted));
write("metrics.jsonl", Object.entries(counted).map(([name, value]) => JSON.stringify({ name, value }) + "\n").join(""));
const driver = { name: given.plugin.name, version: given.plugin.version };
write(`results/${driver.name}.sarif`, JSON.stringify({ version: "2.1.0", runs: [{ tool: { driver }, results }] }));
