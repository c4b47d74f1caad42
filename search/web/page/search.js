// From a text to the documents that are nearest to it. Needs no page: node runs it too.

import { best, openDocuments } from "./documents.js";
import { StaticEncoder } from "./encoder.js";
import { WordPiece } from "./tokenizer.js";

export const FORMAT = 1;

export class Search {
  /** `page` is page.json; `files` holds encoder.json as an object, and table and documents as ArrayBuffers. */
  constructor(page, files) {
    if (page.format !== FORMAT) throw new Error(`page.json has format ${page.format}, these scripts read ${FORMAT}`);
    this.tokenizer = new WordPiece(files.encoder);
    this.encoder = new StaticEncoder(page, files.table);
    this.documents = openDocuments(page, files.documents);
  }

  /** The `count` best documents as {row, score}; none where the encoder knows no token of the text. */
  find(text, count) {
    const ids = this.tokenizer.ids(text);
    if (ids.every((id) => id === this.tokenizer.settings.unknown)) return [];
    const scores = this.documents.score(this.encoder.encode(ids));
    return best(scores, count).map((row) => ({ row, score: scores[row] }));
  }
}
