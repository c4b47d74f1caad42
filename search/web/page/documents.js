// The documents' vectors in few bytes, scored against a query's; every document is looked at.

/** Codes behind float32 numbers that say what they stand for; `score(vector)` gives the dot product with each. */
export function openDocuments({ codec, dim, bits, documents }, buffer) {
  if (codec === "int8") return new Levels(dim, documents, buffer);
  if (codec === "binary") return new Bits(dim, bits, documents, buffer);
  throw new Error(`unknown codec ${codec}`);
}

class Levels {
  constructor(dim, documents, buffer) {
    [this.dim, this.documents] = [dim, documents];
    this.low = new Float32Array(buffer, 0, dim);
    this.step = new Float32Array(buffer, 4 * dim, dim);
    this.codes = new Int8Array(buffer, 8 * dim, documents * dim);
  }

  // A number is low + step × (code + 128): what does not depend on the document is added up once.
  score(vector) {
    const { dim, codes, low, step } = this;
    const weights = vector.map((each, i) => each * step[i]);
    const common = vector.reduce((sum, each, i) => sum + each * (low[i] + 128 * step[i]), 0);
    const scores = new Float64Array(this.documents);
    for (let row = 0, at = 0; row < scores.length; row++) {
      let sum = common;
      for (let i = 0; i < dim; i++, at++) sum += weights[i] * codes[at];
      scores[row] = sum;
    }
    return scores;
  }
}

class Bits {
  constructor(dim, bits, documents, buffer) {
    [this.dim, this.bits, this.documents, this.bytes] = [dim, bits, documents, Math.ceil(bits / 8)];
    this.atoms = new Float32Array(buffer, 0, bits * dim);
    this.codes = new Uint8Array(buffer, 4 * bits * dim, documents * this.bytes);
  }

  // A bit adds its atom or takes it away; eight of them have 256 sums, which are looked up.
  score(vector) {
    const table = this.table(vector), scores = new Float64Array(this.documents);
    for (let row = 0, at = 0; row < scores.length; row++) {
      let sum = 0;
      for (let byte = 0; byte < this.bytes; byte++, at++) sum += table[256 * byte + this.codes[at]];
      scores[row] = sum;
    }
    return scores;
  }

  table(vector) {
    const table = new Float64Array(256 * this.bytes);
    for (let bit = 0; bit < this.bits; bit++) {
      let weight = 0;
      for (let i = 0; i < this.dim; i++) weight += this.atoms[bit * this.dim + i] * vector[i];
      for (let byte = 0; byte < 256; byte++)
        table[256 * (bit >> 3) + byte] += byte & (0x80 >> (bit & 7)) ? weight : -weight;
    }
    return table;
  }
}

/** Rows of the `count` highest scores, best first; of equal ones the first row. */
export function best(scores, count) {
  const rows = [];
  for (let row = 0; row < scores.length; row++) {
    if (rows.length === count && scores[row] <= scores[rows[count - 1]]) continue;
    let place = rows.length;
    while (place > 0 && scores[rows[place - 1]] < scores[row]) place--;
    rows.splice(place, 0, row);
    if (rows.length > count) rows.pop();
  }
  return rows;
}
