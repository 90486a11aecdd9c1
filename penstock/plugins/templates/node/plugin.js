// Counts files; see docs/index.md.
"use strict";
const fs = require("node:fs");
const path = require("node:path");

const ci = process.env.PENSTOCK_CI_DIR || "/ci";
const given = JSON.parse(fs.readFileSync(path.join(ci, "input.json"), "utf8"));
const { suffix, "at-most": atMost } = given.inputs;

function* filesBelow(folder) {
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    const full = path.join(folder, entry.name);
    if (entry.isDirectory()) yield* filesBelow(full);
    else if (entry.isFile()) yield full;
  }
}

const write = (name, text) => fs.writeFileSync(path.join(ci, name), text);
const lines = (values) => values.map((value) => JSON.stringify(value) + "\n").join("");

console.log(`::group::Files that end with ${suffix}`);
const found = [];
for (const file of filesBelow(given.workspace)) {
  if (!file.endsWith(suffix)) continue;
  const one = { path: path.relative(given.workspace, file), bytes: fs.statSync(file).size };
  found.push(one);
  console.log(`${one.path}: ${one.bytes} bytes`);
}
console.log("::endgroup::");

const bytes = found.reduce((sum, one) => sum + one.bytes, 0);
write("metrics.jsonl", lines([{ name: "files", value: found.length }, { name: "bytes", value: bytes }]));
write("output.json", JSON.stringify({ files: found.length }));
if (found.length) {
  const largest = found.reduce((most, one) => (one.bytes > most.bytes ? one : most));
  write("data.jsonl", lines([{ kind: "largest", value: largest }]));
}

const words = `${found.length} files end with ${suffix}, at most ${atMost} may`;
const tooMany = atMost > 0 && found.length > atMost;
const results = tooMany ? [{ ruleId: "too-many-files", level: "note", message: { text: words } }] : [];
const runs = [{ tool: { driver: { name: given.plugin.name } }, results }];
write(`results/${given.plugin.name}.sarif`, JSON.stringify({ version: "2.1.0", runs }));
if (tooMany) {
  console.log(words);
  process.exitCode = 1;
}
