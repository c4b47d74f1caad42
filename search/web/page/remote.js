// A search in a worker, so that typing stays smooth while an encoder with layers computes.

const WORKER = "worker.js";

/** As search.js's: what it returns has `find`. The buffers in `files` are the worker's from then on. */
export async function openSearch(page, files) {
  if (!globalThis.WebAssembly) throw new Error("this browser has no WebAssembly, which the encoder needs");
  const search = new RemoteSearch(started());
  const { texts, ...sent } = files;
  await search.ask({ page, files: sent }, Object.values(sent).filter((each) => each instanceof ArrayBuffer));
  return search;
}

class RemoteSearch {
  constructor(worker) {
    this.worker = worker;
    this.busy = false;
    this.waiting = null;
  }

  /**
   * The best documents as search.js finds them. One text is searched for at a time; of those that come meanwhile only
   * the last one is, and the others get null.
   */
  async find(text, count) {
    if (this.busy && !(await this.turn())) return null;
    this.busy = true;
    try {
      return await this.ask({ text, count });
    } finally {
      this.busy = false;
      this.waiting?.(true);
      this.waiting = null;
    }
  }

  /** Wait until the worker is free; false if another text came in between. */
  turn() {
    this.waiting?.(false);
    return new Promise((done) => (this.waiting = done));
  }

  ask(message, buffers = []) {
    return new Promise((done, fail) => {
      this.worker.onmessage = ({ data: { found, error } }) => (error === undefined ? done(found) : fail(new Error(error)));
      this.worker.onerror = (event) => fail(new Error(`${WORKER} did not start: ${event.message ?? "see the console"}`));
      this.worker.postMessage(message, buffers);
    });
  }
}

function started() {
  // The page's policy takes a worker's address only from here.
  const policy = globalThis.trustedTypes?.createPolicy("worker", { createScriptURL: (address) => address });
  return new Worker(policy ? policy.createScriptURL(WORKER) : WORKER, { type: "module" });
}
