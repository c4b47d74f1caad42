// BERT's tokenizer: text to token ids, equal to those of the `tokenizers` library. What it does to each character
// stands in `characters`, which the build asked that library for: no browser's own Unicode tables are used.

const DROPPED = 1, SPACE = 2, APART = 4, PUNCTUATION = 8, BLANK = 16;
const HANGUL = { first: 0xac00, last: 0xd7a3, leading: 0x1100, vowel: 0x1161, trailing: 0x11a7 };

export class WordPiece {
  constructor(settings) {
    this.settings = settings;
    this.kinds = kindsOf(settings.characters);
    this.changed = new Map(Array.from(settings.characters.from, (each, row) => [each, settings.characters.to[row]]));
    this.vocabulary = new Map();
    settings.vocabulary.forEach((token, id) => token !== null && this.vocabulary.set(token, id));
    this.longest = Math.max(...settings.vocabulary.map((token) => (token === null ? 0 : token.length)));
    this.added = [alternatives(settings.added.raw), alternatives(settings.added.normalised)];
  }

  /** Token ids of a text behind the prompt, between special tokens, cut at the encoder's window. */
  ids(text) {
    const { prompt, before, after, max_length, side } = this.settings;
    const most = Math.max(0, max_length - before.length - after.length), ids = [];
    for (const id of this.all(prompt + wellFormed(text))) {
      if (side === "right" && ids.length === most) break;
      ids.push(id);
    }
    return [...before, ...(side === "right" ? ids : ids.slice(Math.max(0, ids.length - most))), ...after];
  }

  /** Whether any token of a text is one that the encoder has learned; those of the prompt are none of the text's. */
  knows(text) {
    for (const id of this.all(wellFormed(text))) if (id !== this.settings.unknown) return true;
    return false;
  }

  *all(text) {
    for (const outer of split(text, this.added[0])) {
      if (outer.id !== undefined) yield outer.id;
      else
        for (const inner of split(this.normalised(outer.text), this.added[1])) {
          if (inner.id !== undefined) yield inner.id;
          else for (const word of this.words(inner.text)) yield* this.pieces(word);
        }
    }
  }

  normalised(text) {
    let out = "";
    for (const character of text) {
      const code = character.codePointAt(0), kind = this.kinds[code];
      if (kind & DROPPED) continue;
      if (kind & SPACE) out += " ";
      else if (kind & APART) out += ` ${character} `;
      else if (this.settings.characters.hangul && code >= HANGUL.first && code <= HANGUL.last) out += jamo(code);
      else out += this.changed.get(character) ?? character;
    }
    return out;
  }

  /** Runs of characters between blanks; punctuation stands alone. */
  *words(text) {
    let word = [];
    for (const character of text) {
      const kind = this.kinds[character.codePointAt(0)];
      if (!(kind & (BLANK | PUNCTUATION))) {
        word.push(character);
        continue;
      }
      if (word.length) yield word;
      word = [];
      if (kind & PUNCTUATION) yield [character];
    }
    if (word.length) yield word;
  }

  /** The longest piece of the vocabulary, then the longest of what is left; a word with a gap is unknown as a whole. */
  pieces(word) {
    const { unknown, longest_word: most, prefix } = this.settings;
    if (word.length > most) return [unknown];
    const found = [];
    for (let start = 0; start < word.length; ) {
      let end = Math.min(word.length, start + this.longest), id;
      for (; end > start; end--) {
        id = this.vocabulary.get((start ? prefix : "") + word.slice(start, end).join(""));
        if (id !== undefined) break;
      }
      if (end === start) return [unknown];
      found.push(id);
      start = end;
    }
    return found;
  }
}

const wellFormed = (text) => text.replace(/\p{Surrogate}/gu, "\ufffd");

function kindsOf(characters) {
  const kinds = new Uint8Array(0x110000);
  const named = [["dropped", DROPPED], ["space", SPACE], ["apart", APART], ["punctuation", PUNCTUATION], ["blank", BLANK]];
  for (const [name, kind] of named)
    for (const [first, last] of characters[name]) for (let code = first; code <= last; code++) kinds[code] |= kind;
  return kinds;
}

/** A syllable's letters, as Unicode's section 3.12 takes it apart. */
function jamo(code) {
  const index = code - HANGUL.first, trailing = index % 28;
  const letters = [HANGUL.leading + Math.floor(index / 588), HANGUL.vowel + Math.floor((index % 588) / 28)];
  return String.fromCodePoint(...letters, ...(trailing ? [HANGUL.trailing + trailing] : []));
}

/** Tokens that are found in text before words are: as an expression whose first alternative is the longest. */
function alternatives(tokens) {
  const contents = tokens.map(([content]) => content).sort((a, b) => b.length - a.length);
  const escaped = contents.map((each) => each.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&"));
  return { ids: new Map(tokens), expression: contents.length ? new RegExp(escaped.join("|"), "gu") : null };
}

function* split(text, { ids, expression }) {
  let start = 0;
  for (const match of expression ? text.matchAll(expression) : []) {
    yield { text: text.slice(start, match.index) };
    yield { id: ids.get(match[0]) };
    start = match.index + match[0].length;
  }
  yield { text: text.slice(start) };
}
