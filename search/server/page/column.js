// One list of results with what it is called and how long it took.

import { result } from "./results.js";

export class Column {
  constructor(section, template) {
    [this.section, this.template, this.list] = [section, template, section.querySelector("ol")];
    this.ids = [];
    this.list.setAttribute("aria-labelledby", section.getAttribute("aria-labelledby"));
  }

  name(text) {
    this.section.querySelector("h2").textContent = text;
  }

  get buttons() {
    return [...this.list.querySelectorAll("button")];
  }

  /** Mark what is shown as of a former query, until the next `show`. */
  wait() {
    this.section.setAttribute("aria-busy", "true");
  }

  show({ hits, seconds }) {
    const place = this.buttons.indexOf(document.activeElement);
    this.section.removeAttribute("aria-busy");
    this.ids = hits.map((hit) => hit.id);
    this.list.replaceChildren(...hits.map((hit, row) => this.item(hit, row)));
    if (place >= 0) this.buttons[Math.min(place, hits.length - 1)]?.focus();
    this.took(seconds);
  }

  clear() {
    this.section.removeAttribute("aria-busy");
    this.ids = [];
    this.list.replaceChildren();
    this.took(null);
  }

  /** Say of every result how its rank differs from the other list's; none where there is nothing to compare with. */
  mark(texts) {
    [...this.list.children].forEach((item, row) => (item.querySelector(".change").textContent = texts[row] ?? ""));
  }

  item({ id, rank, title, passage, score }, row) {
    const item = result(this.template, { title, text: passage, score }, `${this.section.id}-${row}`);
    item.dataset.id = id;
    item.querySelector(".rank").textContent = rank;
    return item;
  }

  took(seconds) {
    const said = seconds && `${milliseconds(seconds.encode + seconds.search)} (encoding ${milliseconds(seconds.encode)}, searching ${milliseconds(seconds.search)})`;
    this.section.querySelector(".took").textContent = said ?? "";
  }
}

const milliseconds = (seconds) => `${(1000 * seconds).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
