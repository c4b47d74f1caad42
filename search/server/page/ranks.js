// How two lists of document ids differ. Needs no page: node runs it too.

/** For each of `ids`: its rank in the `others`, from 1, and how many ranks higher it stands here; both null if it is not there. */
export function changes(ids, others) {
  const ranks = new Map(others.map((id, place) => [id, place + 1]));
  return ids.map((id, place) => {
    const there = ranks.get(id) ?? null;
    return { there, higher: there === null ? null : there - (place + 1) };
  });
}

/** What stands at each document of the student's `ids`, and at each of the teacher's: how the student moves it. */
export function marks(student, teacher) {
  return {
    student: changes(student, teacher).map(({ there, higher }) => words("teacher", teacher.length, there, higher)),
    teacher: changes(teacher, student).map(({ there, higher }) => words("student", student.length, there, -higher)),
  };
}

function words(whose, length, there, risen) {
  if (there === null) return `○ not in the ${whose}’s first ${length}`;
  return risen === 0 ? "= same rank" : `${risen > 0 ? "▲" : "▼"} ${Math.abs(risen)}, ${whose}’s rank ${there}`;
}

/** How many of the `others` are among `ids`, and how many of those at the same rank. */
export function shared(ids, others) {
  const all = changes(ids, others);
  return { both: all.filter((each) => each.there !== null).length, same: all.filter((each) => each.higher === 0).length };
}
