// The static encoder: a query's vector is the mean of its tokens' rows.

export function openEncoder(page, { table }) {
  return new StaticEncoder(page, table);
}

class StaticEncoder {
  /** `buffer` holds a float32 scale for each token, then its row of `dim` int8. */
  constructor({ tokens, dim, normalize }, buffer) {
    this.dim = dim;
    this.normalize = normalize;
    this.scales = new Float32Array(buffer, 0, tokens);
    this.rows = new Int8Array(buffer, 4 * tokens, tokens * dim);
  }

  /** The vector, `dim` floats; zeros where there is no token. */
  encode(ids) {
    const vector = new Float64Array(this.dim);
    for (const id of ids) {
      const scale = this.scales[id], start = id * this.dim;
      for (let i = 0; i < this.dim; i++) vector[i] += scale * this.rows[start + i];
    }
    const length = this.normalize ? Math.hypot(...vector) : ids.length;
    return length ? vector.map((each) => each / length) : vector;
  }
}
