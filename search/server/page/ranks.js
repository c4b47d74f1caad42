// How two lists of document ids differ. Needs no page: node runs it too.

/** For each of `ids`: its rank in the `others`, from 1, and how many ranks higher it stands here; both null if it is not there. */
export function changes(ids, others) {
  const ranks = new Map(others.map((id, place) => [id, place + 1]));
  return ids.map((id, place) => {
    const there = ranks.get(id) ?? null;
    return { there, higher: there === null ? null : there - (place + 1) };
  });
}

/** The change in few words; `whose` is the other list, of `length` documents. */
export function words({ there, higher }, whose, length) {
  if (there === null) return `○ not in the ${whose}’s first ${length}`;
  if (higher === 0) return `= same rank as the ${whose}`;
  return `${higher > 0 ? "▲" : "▼"} ${Math.abs(higher)}, ${whose}’s rank ${there}`;
}

/** How many of the `others` are among `ids`, and how many of those at the same rank. */
export function shared(ids, others) {
  const all = changes(ids, others);
  return { both: all.filter((each) => each.there !== null).length, same: all.filter((each) => each.higher === 0).length };
}
