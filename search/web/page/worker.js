// Where a page's search runs if its encoder has layers; remote.js speaks to it, one message at a time.

import { openSearch } from "./search.js";

let search;

globalThis.onmessage = async ({ data: { page, files, text, count } }) => {
  try {
    if (page) search = await openSearch(page, files);
    postMessage({ found: page ? true : await search.find(text, count) });
  } catch (error) {
    console.error(error);
    postMessage({ error: error.message });
  }
};
