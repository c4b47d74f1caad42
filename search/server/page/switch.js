// Which encoders and dims there are to choose from, as three lists of values. Needs no page: node runs it too.

export const AXES = ["layers", "dim", "precision"];

/** Every encoder of queries at every dim that it may be searched in. Of those with the same three values the one that
 *  was made for the fewest dims is taken; where several were, their names tell them apart. */
export function choicesOf(encoders) {
  const all = encoders.filter((each) => each.side === "query").flatMap(choices);
  const kept = all.filter((each) => !all.some((other) => other.own < each.own && alike(each, other)));
  const doubled = new Set(kept.filter((each) => kept.some((other) => other !== each && alike(each, other))).map((each) => each.encoder));
  return kept.map(({ own, ...each }) => (doubled.has(each.encoder) ? { ...each, layers: `${each.layers} (${each.encoder})` } : each));
}

function choices({ name, layers, precision, dims }) {
  return dims.map((dim) => ({ encoder: name, layers: String(layers ?? name), dim: String(dim), precision, own: dims[0] }));
}

const alike = (one, other) => AXES.every((axis) => one[axis] === other[axis]);

/** The values of one axis, in the order in which they are wanted: numbers from the least. */
export function valuesOf(choices, axis) {
  const values = [...new Set(choices.map((each) => each[axis]))];
  return values.sort((a, b) => parseInt(a) - parseInt(b) || 0);
}

/** The choice that has `value` on the `axis` and otherwise most in common with the `former` one. */
export function nearest(choices, former, axis, value) {
  const common = (each) => AXES.filter((other) => each[other] === former[other]).length;
  const fitting = choices.filter((each) => each[axis] === value);
  return fitting.reduce((best, each) => (common(each) > common(best) ? each : best));
}

/** A choice as a heading. */
export function titleOf({ layers, dim, precision }) {
  const count = /^\d/.test(layers) ? String(layers).replace(/^\d+/, (each) => `${each} ${each === "1" ? "layer" : "layers"}`) : layers;
  return [count, `${dim} dims`, precision].filter(Boolean).join(", ");
}
