// The page: what is typed is searched for, what is found is shown. Texts of documents go in as text, never as HTML.

import { focus, result } from "./results.js";
import { load, loadPage } from "./loading.js";
import { Search } from "./search.js";

const SHOWN = 10, PAUSE = 80; // results; milliseconds after a key before a search
const at = (id) => document.getElementById(id);
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
const number = (value) => value.toLocaleString("en");

let page, search, texts, timer;

async function start() {
  at("unstarted").remove();
  at("retry").hidden = true;
  at("progress").hidden = false;
  say("Loading…");
  try {
    page = await loadPage();
    name();
    const files = await load(page, progress);
    texts = files.texts;
    search = new Search(page, files);
  } catch (error) {
    fail(error);
    return;
  }
  at("progress").hidden = true;
  at("query").disabled = false;
  at("query").focus();
  run();
}

function name() {
  document.title = page.title;
  at("title").textContent = page.title;
  const download = `${megabytes(page.download.bytes)} (${megabytes(page.download.gzip)} compressed)`;
  at("about").textContent =
    `${number(page.documents)} documents. Download: ${download}. Queries are answered in this browser and sent nowhere.`;
}

function progress(bytes) {
  const total = Object.values(page.files).reduce((sum, file) => sum + file.bytes, 0);
  at("progress").value = bytes / total;
  at("bytes").textContent = `${megabytes(bytes)} of ${megabytes(total)}`;
  at("bytes").hidden = bytes === total;
}

function fail(error) {
  console.error(error);
  at("progress").hidden = at("bytes").hidden = true;
  at("retry").hidden = false;
  say(`Loading failed: ${error.message}.`);
}

function say(text) {
  at("status").textContent = text;
}

/** Search for what stands in the field now, and show it. */
function run() {
  clearTimeout(timer);
  timer = 0;
  const text = at("query").value.trim();
  if (!search) return;
  const begun = performance.now();
  const hits = text ? search.find(text, SHOWN) : [];
  at("results").replaceChildren(...hits.map(shown));
  const took = performance.now() - begun;
  Object.assign(at("results").dataset, { query: text, milliseconds: took });
  if (!text) say(`Type to search ${number(page.documents)} documents.`);
  else if (!hits.length) say("No match: no word of this is known.");
  else say(`${hits.length} of ${number(page.documents)} documents, in ${took.toFixed(1)} ms`);
}

function shown({ row, score }, place) {
  const [title, text] = texts[row], item = result(at("hit"), { title, text, score }, `passage-${place}`);
  item.dataset.row = row;
  return item;
}

/** Move the focus by `step` among the field and the results' buttons. */
function move(step) {
  focus([at("query"), ...at("results").querySelectorAll("button")], step);
}

function key(event) {
  if (event.isComposing || !search) return;
  if (timer && event.key.startsWith("Arrow")) run(); // a list that came later would take the focus away
  if (event.key === "ArrowDown") move(1);
  else if (event.key === "ArrowUp") move(-1);
  else if (event.key === "Escape") clear();
  else return;
  event.preventDefault();
}

function clear() {
  at("query").value = "";
  at("query").focus();
  run();
}

at("query").addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(run, PAUSE);
});
at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
at("retry").addEventListener("click", () => location.reload());
document.addEventListener("keydown", key);
start();
