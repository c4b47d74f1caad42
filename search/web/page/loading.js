// Fetching the files that page.json names, with the bytes counted as they come.

export class LoadError extends Error {}

/** Contents by name: objects of .json files, ArrayBuffers of the others. `told` hears how many bytes have come. */
export async function load(page, told, fetcher = fetch) {
  let bytes = 0;
  const count = (more) => told((bytes += more));
  const names = Object.keys(page.files);
  const contents = await Promise.all(names.map((name) => one(page.files[name], count, fetcher)));
  return Object.fromEntries(names.map((name, row) => [name, contents[row]]));
}

/** page.json itself; asked for anew each time, as it says which version of the others belongs to it. */
export async function loadPage(fetcher = fetch) {
  return (await answer("page.json", { cache: "no-cache" }, fetcher)).json();
}

async function one({ file, bytes, version }, count, fetcher) {
  const response = await answer(`${file}?v=${version}`, {}, fetcher);
  const whole = new Uint8Array(bytes);
  let at = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    if (at + value.length > bytes) throw new LoadError(`${file} is longer than page.json says`);
    whole.set(value, at);
    at += value.length;
    count(value.length);
  }
  if (at < bytes) throw new LoadError(`${file} ended after ${at} of ${bytes} bytes`);
  return file.endsWith(".json") ? JSON.parse(new TextDecoder().decode(whole)) : whole.buffer;
}

async function answer(file, options, fetcher) {
  let response;
  try {
    response = await fetcher(file, options);
  } catch (error) {
    throw new LoadError(`${file} could not be fetched: ${error.message}`);
  }
  if (!response.ok) throw new LoadError(`${file}: the server answered ${response.status}`);
  return response;
}
