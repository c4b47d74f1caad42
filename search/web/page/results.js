// A list of results: titles that open their passages. Texts of documents go in as text, never as HTML.

const TITLE = 90; // characters of a text that has no title

/** An item made of the `template`; `name` tells its passage from the others on the page. */
export function result(template, { title, text, score }, name) {
  const item = template.content.firstElementChild.cloneNode(true);
  const [heading, rest] = titled(title, text), button = item.querySelector("button"), passage = item.querySelector(".passage");
  button.textContent = heading;
  passage.textContent = rest;
  passage.id = name;
  button.setAttribute("aria-controls", name);
  button.addEventListener("click", () => {
    const open = passage.classList.toggle("open");
    button.setAttribute("aria-expanded", String(open));
  });
  item.querySelector(".score").textContent = score.toFixed(3);
  return item;
}

/** Title and passage; where there is no title, the first words of the text stand there instead of in the passage. */
export function titled(title, text) {
  if (title || text.length <= TITLE) return title ? [title, text] : [text, ""];
  const blank = text.lastIndexOf(" ", TITLE), half = /[\udc00-\udfff]/.test(text[TITLE]); // of a character
  const end = blank > 0 ? blank : half ? TITLE - 1 : TITLE;
  return [`${text.slice(0, end)}…`, `…${text.slice(end).trimStart()}`];
}

/** Move the focus by `step` among `stops`. */
export function focus(stops, step) {
  const next = stops.indexOf(document.activeElement) + step;
  if (next >= 0 && next < stops.length) stops[next].focus();
}
