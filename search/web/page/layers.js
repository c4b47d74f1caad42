// An encoder with layers: the ONNX file that emb.load opens in Python, on onnxruntime-web. Runs in a worker.

import * as ort from "./onnxruntime.js";

const THREADS = 4; // at most; a short text has no work for more
const LEAST = 0.99; // cosine of a vector to Python's: kernels for 8 bits round differently, and no more than that

/** Opens the model and holds its vectors against those of the build. */
export async function openEncoder(page, { encoder: settings, model, runtime }, tokenizer) {
  Object.assign(ort.env.wasm, { wasmBinary: runtime, numThreads: threads() });
  const session = await ort.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"] });
  const encoder = new LayeredEncoder(page, session);
  for (const [text, vector] of settings.tried) {
    const found = cosine(await encoder.encode(tokenizer.ids(text)), vector);
    if (!(found >= LEAST))
      throw new Error(`this browser computes other vectors than the model's own (cosine ${found.toFixed(3)})`);
  }
  return encoder;
}

class LayeredEncoder {
  constructor({ dim, normalize }, session) {
    Object.assign(this, { dim, normalize, session });
    const names = session.outputNames;
    this.output = names.includes("sentence_embedding") ? "sentence_embedding" : names[0];
  }

  /** The first `dim` numbers of the vector that the model gives of token `ids`; there must be one. */
  async encode(ids) {
    const shape = [1, ids.length];
    const input_ids = new ort.Tensor("int64", BigInt64Array.from(ids, BigInt), shape);
    const attention_mask = new ort.Tensor("int64", new BigInt64Array(ids.length).fill(1n), shape);
    const found = await this.session.run({ input_ids, attention_mask }, [this.output]);
    const vector = Float64Array.from(found[this.output].data.subarray(0, this.dim));
    const length = this.normalize ? Math.hypot(...vector) : 1;
    return length ? vector.map((each) => each / length) : vector;
  }
}

/** Threads share memory, which browsers allow only where the server isolates the page from other origins. */
function threads() {
  return globalThis.crossOriginIsolated ? Math.min(THREADS, globalThis.navigator.hardwareConcurrency) : 1;
}

function cosine(a, b) {
  const dot = (x, y) => x.reduce((sum, each, i) => sum + each * y[i], 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}
