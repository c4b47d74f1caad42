// Vectors by transformers.js: ARTIFACT TEXTS OUT DTYPE.
import { readFileSync, writeFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { AutoModel, AutoTokenizer, env } from "@huggingface/transformers";

const [artifact, texts, out, dtype] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = dirname(artifact);
const tokenizer = await AutoTokenizer.from_pretrained(basename(artifact));
const model = await AutoModel.from_pretrained(basename(artifact), { dtype });
const all = JSON.parse(readFileSync(texts, "utf8"));
const vectors = [];
for (let i = 0; i < all.length; i += 16) {
  const inputs = await tokenizer(all.slice(i, i + 16), { padding: true, truncation: true });
  const { sentence_embedding } = await model(inputs);
  vectors.push(...sentence_embedding.tolist());
}
writeFileSync(out, JSON.stringify(vectors));
