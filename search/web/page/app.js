// The page: what is typed is searched for, what is found is shown. Texts of documents go in as text, never as HTML.

import { focus, result } from "./results.js";
import { load, loadPage } from "./loading.js";

const SHOWN = 10, PAUSE = 80; // results; milliseconds after a key before a search
const at = (id) => document.getElementById(id);
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
const number = (value) => value.toLocaleString("en");

let page, search, texts, timer, asked = 0, running;

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
    say("Starting…");
    at("progress").removeAttribute("value");
    const { openSearch } = await import(page.kind === "onnx" ? "./remote.js" : "./search.js");
    search = await openSearch(page, files);
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
  at("about").textContent =
    `${number(page.documents)} documents. Download: ${megabytes(page.download.bytes)}. ` +
    "Queries are answered in this browser and sent nowhere.";
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

/** Search for what stands in the field now. */
function run() {
  clearTimeout(timer);
  timer = 0;
  running = show();
}

/** Show what is found, unless another text stands there by then. */
async function show() {
  const text = at("query").value.trim(), turn = ++asked;
  if (!search) return;
  const begun = performance.now();
  let hits;
  try {
    hits = text ? await search.find(text, SHOWN) : [];
  } catch (error) {
    console.error(error);
    say(`The search failed: ${error.message}.`);
    return;
  }
  if (turn !== asked) return;
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

const KEYS = { ArrowDown: () => go(1), ArrowUp: () => go(-1), Escape: clear };

function key(event) {
  if (event.isComposing || !search || !(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key]();
}

async function go(step) {
  if (timer) run();
  await running; // a list that came later would take the focus away
  move(step);
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
