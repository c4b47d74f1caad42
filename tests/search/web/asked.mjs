// What a page's scripts find, as JSON: PAGE TEXTS COUNT.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, texts, count] = process.argv.slice(2);
const script = (name) => import(pathToFileURL(join(folder, name)));
const [{ load, loadPage }, { openSearch }] = [await script("loading.js"), await script("search.js")];
const fetcher = async (address) => new Response(readFileSync(join(folder, address.split("?")[0])));
const page = await loadPage(fetcher);
const search = await openSearch(page, await load(page, () => 0, fetcher));
const found = [];
for (const text of JSON.parse(readFileSync(texts))) {
  const ids = search.tokenizer.ids(text);
  const vector = Array.from(await search.encoder.encode(ids));
  found.push({ ids, vector, hits: await search.find(text, Number(count)) });
}
console.log(JSON.stringify(found));
