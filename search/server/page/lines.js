// Lines between the places that a document has in two lists.

const SPACE = "http://www.w3.org/2000/svg";
const STUB = 14; // pixels, of a document that the other list does not have

export class Lines {
  constructor(svg) {
    [this.svg, this.group] = [svg, svg.querySelector("g")];
  }

  /** Draw them anew for items on the left and on the right, each with its `data-id`. */
  draw(left, right) {
    const box = this.svg.getBoundingClientRect();
    if (!box.width) return this.clear(); // narrow screens have none
    const at = (item) => middle(item.querySelector(".rank").getBoundingClientRect()) - box.top;
    const places = new Map(right.map((item, row) => [item.dataset.id, { y: at(item), row }]));
    const found = new Set(left.map((item) => item.dataset.id));
    const joined = left.map((item, row) => line(item.dataset.id, box.width, at(item), places.get(item.dataset.id), row));
    const alone = right.filter((item) => !found.has(item.dataset.id)).map((item) => stub(item.dataset.id, box.width, -STUB, at(item)));
    this.group.replaceChildren(...joined, ...alone);
  }

  clear() {
    this.group.replaceChildren();
  }

  /** Let one document's line stand out; null for none. */
  point(id) {
    for (const each of this.group.children) each.classList.toggle("pointed", each.dataset.id === id);
    this.svg.classList.toggle("pointing", [...this.group.children].some((each) => each.dataset.id === id));
  }
}

const middle = ({ top, bottom }) => (top + bottom) / 2;

function line(id, width, y, there, row) {
  if (!there) return stub(id, 0, STUB, y);
  const kind = there.row === row ? "same" : there.row > row ? "higher" : "lower";
  // From the teacher's place to the student's, where the head is.
  const path = made("path", id, { d: `M${width - 2} ${there.y}C${width / 2} ${there.y} ${width / 2} ${y} 3 ${y}` });
  path.classList.add(kind);
  if (kind !== "same") path.setAttribute("marker-end", "url(#head)");
  return path;
}

function stub(id, x, length, y) {
  const group = made("g", id, {});
  const radius = 3, end = x + length;
  group.append(made("path", id, { d: `M${x} ${y}H${end - Math.sign(length) * radius}` }), made("circle", id, { cx: end, cy: y, r: radius }));
  group.classList.add("alone");
  return group;
}

function made(name, id, attributes) {
  const element = document.createElementNS(SPACE, name);
  element.dataset.id = id;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
