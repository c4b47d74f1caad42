// From a text to the documents that are nearest to it. Needs no page: a worker and node run it too.

import { best, openDocuments } from "./documents.js";
import { WordPiece } from "./tokenizer.js";

export const FORMAT = 2;

/** `page` is page.json; `files` what loading.js fetched: encoder as an object, the others as ArrayBuffers. */
export async function openSearch(page, files) {
  if (page.format !== FORMAT) throw new Error(`page.json has format ${page.format}, these scripts read ${FORMAT}`);
  const tokenizer = new WordPiece(files.encoder);
  const { openEncoder } = await import(page.kind === "onnx" ? "./layers.js" : "./encoder.js");
  return new Search(tokenizer, await openEncoder(page, files, tokenizer), openDocuments(page, files.documents));
}

export class Search {
  constructor(tokenizer, encoder, documents) {
    Object.assign(this, { tokenizer, encoder, documents });
  }

  /** The `count` best documents as {row, score}; none where the encoder knows no token of the text. */
  async find(text, count) {
    if (!this.tokenizer.knows(text)) return [];
    const scores = this.documents.score(await this.encoder.encode(this.tokenizer.ids(text)));
    return best(scores, count).map((row) => ({ row, score: scores[row] }));
  }
}
