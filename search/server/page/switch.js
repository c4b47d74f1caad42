// Which encoders and dims there are to choose from, as three lists of values. Needs no page: node runs it too.

export const AXES = ["layers", "dim", "precision"];

/** Every encoder of queries at every dim that it may be searched in; `layers` is what the list shows. */
export function choicesOf(encoders) {
  const queries = encoders.filter((each) => each.side === "query");
  return queries.flatMap(({ name, layers, precision, dims }) => {
    const like = queries.filter((each) => each.layers === layers && each.precision === precision);
    const label = layers === null ? name : like.length > 1 ? `${layers} (${name})` : String(layers);
    return dims.map((dim) => ({ encoder: name, layers: label, dim: String(dim), precision }));
  });
}

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
  const count = /^\d+$/.test(layers) ? `${layers} ${layers === "1" ? "layer" : "layers"}` : layers;
  return `${count}, ${dim} dims, ${precision}`;
}
