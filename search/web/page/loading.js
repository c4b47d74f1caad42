// Fetching the files that page.json names, with the bytes counted as they come.

export class LoadError extends Error {}

/**
 * Contents by name: objects of .json files, ArrayBuffers of the others. `told` hears how many bytes have come. Where one
 * file fails, the others are not fetched to their end.
 */
export async function load(page, told, fetcher = fetch) {
  let bytes = 0;
  const names = Object.keys(page.files), stop = new AbortController();
  const count = (more) => stop.signal.aborted || told((bytes += more));
  try {
    const contents = await Promise.all(names.map((name) => one(page.files[name], count, fetcher, stop.signal)));
    return Object.fromEntries(names.map((name, row) => [name, contents[row]]));
  } catch (error) {
    stop.abort();
    throw error;
  }
}

/** page.json itself; asked for anew each time, as it says which version of the others belongs to it. */
export async function loadPage(fetcher = fetch) {
  return (await answer("page.json", { cache: "no-cache" }, fetcher)).json();
}

/** What a cache kept may be damaged, and reloading the page would find it again: a second try goes past the caches. */
async function one(entry, count, fetcher, signal) {
  try {
    return await received(entry, count, fetcher, { signal });
  } catch (error) {
    if (signal.aborted) throw error;
    return received(entry, () => {}, fetcher, { signal, cache: "reload" });
  }
}

async function received({ file, bytes, unpacked, version }, count, fetcher, options) {
  const response = await answer(file, options, fetcher, `?v=${version}`);
  const packed = new Uint8Array(bytes);
  let at = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    if (at + value.length > bytes) throw new LoadError(`${file} is longer than page.json says`);
    packed.set(value, at);
    at += value.length;
    count(value.length);
  }
  if (at < bytes) throw new LoadError(`${file} ended after ${at} of ${bytes} bytes`);
  await requireVersion(file, packed, version);
  const whole = await unpack(packed);
  if (whole.byteLength !== unpacked) throw new LoadError(`${file} has not the content that page.json says`);
  return file.includes(".json") ? JSON.parse(new TextDecoder().decode(whole)) : whole;
}

/** The version is the beginning of the file's SHA-256, which browsers compute on safe origins only. */
async function requireVersion(file, content, version) {
  if (!globalThis.crypto?.subtle) return;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  const found = Array.from(digest, (each) => each.toString(16).padStart(2, "0")).join("");
  if (!found.startsWith(version)) throw new LoadError(`${file} is damaged or of another version of this page`);
}

async function unpack(packed) {
  if (!globalThis.DecompressionStream) throw new LoadError("this browser is too old: it has no DecompressionStream");
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

async function answer(file, options, fetcher, version = "") {
  let response;
  try {
    response = await fetcher(file + version, options);
  } catch (error) {
    throw new LoadError(`${file} could not be fetched: ${error.message}`);
  }
  if (!response.ok) throw new LoadError(`${file}: the server answered ${response.status}`);
  return response;
}
