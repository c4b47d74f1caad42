// Asking the server. The API key, where there is one, is in this module's memory and nowhere else.

export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

let authorization = null;

/** Send this key from now on; headers carry bytes, and the server reads them as UTF-8. */
export function useKey(key) {
  authorization = `Bearer ${String.fromCharCode(...new TextEncoder().encode(key))}`;
}

/** The answer's JSON; with a `body` it is a POST. `signal` gives up, and the server then does too. */
export async function ask(path, { body, signal } = {}) {
  const headers = { ...(authorization && { Authorization: authorization }), ...(body && { "Content-Type": "application/json" }) };
  const options = { method: body ? "POST" : "GET", headers, signal, cache: "no-store", credentials: "omit" };
  let response;
  try {
    response = await fetch(path, { ...options, ...(body && { body: JSON.stringify(body) }) });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused("the server cannot be reached", 0);
  }
  if (!response.ok) throw new Refused(await reason(response), response.status);
  return response.json();
}

async function reason(response) {
  try {
    const { error } = await response.json();
    return error.message ?? error;
  } catch {
    return `the server answered ${response.status}`;
  }
}
