// The page: what is typed is searched for by the chosen encoder, and by the teacher where the server has it.

import { Column } from "./column.js";
import { Lines } from "./lines.js";
import { marks, shared } from "./ranks.js";
import { focus } from "./results.js";
import { ask, useKey } from "./server.js";
import { AXES, choicesOf, nearest, titleOf, valuesOf } from "./switch.js";

const SHOWN = 10, PAUSE = 120; // results; milliseconds after a key before a search
const TEACHER_PAUSE = 300; // and before the teacher is asked, whose answer takes long
const CHARACTERS = 2000; // of a passage
const at = (id) => document.getElementById(id);
const number = (value) => value.toLocaleString("en");

const student = new Column(at("student"), at("hit")), teacher = new Column(at("teacher"), at("hit"));
const lines = new Lines(at("lines"));
let documents, choices, choice, reference; // what the server has, what is chosen, the teacher's name or undefined
let asked = new AbortController(), timer = 0;
let known = null, tried = false; // the query of the teacher's answer that is shown; whether a key was given

async function start() {
  at("retry").hidden = at("key-form").hidden = true;
  say("Loading…");
  try {
    const found = await ask("search/encoders");
    documents = found.documents;
    choices = choicesOf(found.encoders);
    reference = found.encoders.find((each) => each.side === "teacher");
  } catch (error) {
    if (error.status === 401) askForKey();
    else fail(error, start);
    return;
  }
  choice = choices[0];
  offer();
  at("about").textContent = `${number(documents)} documents. Queries go to this server.`;
  at("query").disabled = false;
  at("query").focus();
  run();
}

function askForKey() {
  say(tried ? "This is not the server’s key." : "This server asks for a key.");
  at("key-form").hidden = false;
  at("query").disabled = true;
  at("key").focus();
}

/** Show what there is to choose from, and whether there is a teacher. */
function offer() {
  for (const each of document.querySelectorAll("#teacher, #lines, .both")) each.toggleAttribute("hidden", !reference);
  document.querySelector("main").classList.toggle("comparing", Boolean(reference));
  if (reference) teacher.name(`Teacher: ${titleOf({ ...reference, dim: reference.dims[0] })}`);
  at("switch").hidden = choices.length === 1;
  for (const axis of AXES) at(axis).replaceChildren(...valuesOf(choices, axis).map((value) => new Option(value, value)));
  chosen();
}

function chosen() {
  for (const axis of AXES) at(axis).value = choice[axis];
  student.name(`${reference ? "Student: " : ""}${titleOf(choice)}`);
}

function say(text) {
  at("status").textContent = text;
}

function fail(error, again) {
  if (!(error.status >= 0)) console.error(error);
  for (const column of [student, teacher]) column.section.removeAttribute("aria-busy");
  at("retry").hidden = false;
  at("retry").onclick = again;
  say(`Failed: ${error.message}.`);
}

/** Search for what stands in the field now; an answer to an earlier question is dropped, and the server told so. */
async function run() {
  clearTimeout(timer);
  timer = 0;
  asked.abort();
  asked = new AbortController();
  const text = at("query").value.trim(), { signal } = asked;
  at("retry").hidden = true;
  if (!text) return clear();
  try {
    await compare(text, signal);
  } catch (error) {
    if (signal.aborted) return;
    if (error.status === 401) askForKey();
    else fail(error, run);
  }
}

async function compare(text, signal) {
  if (known?.text !== text) known = null;
  student.wait();
  const found = await search(text, choice.encoder, Number(choice.dim), signal);
  at("columns").hidden = false;
  student.show(found);
  if (!reference) return done(text, found.hits.length ? `${count(found)}.` : "No documents are found.");
  if (!known) await askTeacher(text, found, signal);
  const { both, same } = shared(student.ids, teacher.ids);
  const said = marks(student.ids, teacher.ids);
  student.mark(said.student);
  teacher.mark(said.teacher);
  draw();
  const of = teacher.ids.length;
  done(text, of ? `${count(found)}; ${both} of the teacher’s first ${of} are among them, ${same} at the same rank.` : "No documents are found.");
}

/** The teacher is asked after the student, not beside it: on one machine, each would slow the other down. */
async function askTeacher(text, found, signal) {
  lines.clear();
  teacher.mark([]);
  teacher.wait();
  say(`${count(found)}; the teacher is asked…`);
  await new Promise((next) => setTimeout(next, TEACHER_PAUSE));
  signal.throwIfAborted();
  teacher.show(await search(text, reference.name, reference.dims[0], signal));
  known = { text };
}

async function search(query, encoder, dim, signal) {
  const found = await ask("search", { body: { query, k: SHOWN, encoder, dim, characters: CHARACTERS }, signal });
  signal.throwIfAborted();
  return found;
}

const count = ({ hits }) => `${hits.length} of ${number(documents)} documents`;

function done(text, said) {
  say(said);
  at("columns").dataset.query = `${text}\n${choice.encoder}\n${choice.dim}`;
}

function clear() {
  student.clear();
  teacher.clear();
  lines.clear();
  known = null;
  at("columns").hidden = true;
  done("", `Type to search ${number(documents)} documents.`);
}

function draw() {
  if (known) lines.draw([...student.list.children], [...teacher.list.children]);
}

/** The same document in the other list, or what stands at its place there. */
function across(button) {
  const here = student.buttons.includes(button) ? student : teacher, there = here === student ? teacher : student;
  const place = here.buttons.indexOf(button), same = there.ids.indexOf(here.ids[place]);
  there.buttons[same >= 0 ? same : Math.min(place, there.ids.length - 1)]?.focus();
}

function key(event) {
  const active = document.activeElement, inList = active.closest?.("#columns li") !== null && active.tagName === "BUTTON";
  if (event.isComposing || event.ctrlKey || event.altKey || event.metaKey || at("query").disabled) return;
  if (event.key === "/" && !/^(INPUT|SELECT)$/.test(active.tagName)) at("query").select();
  else if (event.key === "Escape") {
    at("query").value = "";
    at("query").focus();
    run();
  } else if (inList && /^Arrow(Left|Right)$/.test(event.key)) across(active);
  else if ((inList || active === at("query")) && /^Arrow(Up|Down)$/.test(event.key)) step(event.key === "ArrowDown" ? 1 : -1);
  else return;
  event.preventDefault();
}

function step(by) {
  const list = teacher.buttons.includes(document.activeElement) ? teacher : student;
  focus([at("query"), ...list.buttons], by);
}

at("query").addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(run, PAUSE);
});
at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(at("key").value.trim());
  at("key").value = "";
  tried = true;
  start();
});
for (const axis of AXES)
  at(axis).addEventListener("change", () => {
    choice = nearest(choices, choice, axis, at(axis).value);
    chosen();
    run();
  });
for (const name of ["focusin", "pointerover"])
  at("columns").addEventListener(name, (event) => lines.point(event.target.closest("li")?.dataset.id ?? null));
at("columns").addEventListener("pointerleave", () => lines.point(null));
new ResizeObserver(draw).observe(at("columns"));
document.addEventListener("keydown", key);
start();
