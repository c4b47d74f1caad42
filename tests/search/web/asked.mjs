// What a page's scripts find, as JSON: PAGE TEXTS COUNT.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, texts, count] = process.argv.slice(2);
const { Search } = await import(pathToFileURL(join(folder, "search.js")));
const read = (name) => readFileSync(join(folder, name));
const buffer = (name) => new Uint8Array(read(name)).buffer;
const files = { encoder: JSON.parse(read("encoder.json")), table: buffer("table.bin"), documents: buffer("documents.bin") };
const search = new Search(JSON.parse(read("page.json")), files);
const found = JSON.parse(readFileSync(texts)).map((text) => {
  const ids = search.tokenizer.ids(text);
  return { ids, vector: Array.from(search.encoder.encode(ids)), hits: search.find(text, Number(count)) };
});
console.log(JSON.stringify(found));
