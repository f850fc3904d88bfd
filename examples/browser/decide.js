// Decisions of a model from its manifest, computed as in reviewguard/bundle/decision.py and reviewguard/bundle/windows.py.

export const REVIEW = "needs_review";
export const NOT_FLAGGED = "not_flagged";

/** Number of words in a text, as counted for thresholds by length. */
export function countWords(text) {
  return text.replace(/ +(?=[,.!?;:])/g, "").split(/\s+/u).filter(Boolean).length;
}

/** Log-odds of each class against all others combined. */
export function logOdds(logits) {
  return logits.map((logit, index) => logit - logSumExp(logits.filter((_, other) => other !== index)));
}

/** Combine the logits of a text's windows into one row. The mean is weighted by token count. */
export function combine({ rule }, rows, tokens, positive) {
  const all = tokens.reduce((sum, count) => sum + count);
  if (rule === "mean") return rows[0].map((_, index) => rows.reduce((sum, row, at) => sum + tokens[at] * row[index], 0) / all);
  const odds = rows.map((row) => logOdds(row)[positive]);
  return rows[odds.indexOf(Math.max(...odds))];
}

/** The decision: a class, needs_review or not_flagged. */
export function decide({ classes, positive, decision }, logits, words) {
  const { operating_point: point, abstention } = decision;
  const bands = point?.bands ?? [];
  if (bands.length && words < bands[0].words) return REVIEW;
  const odds = logOdds(logits);
  const at = classes.indexOf(positive);
  const threshold = bands.findLast((band) => band.words <= words)?.threshold ?? point?.threshold;
  const within = (index) => odds[index] >= abstention.floors[index];
  const certain = () => classes.filter((_, index) => within(index));
  const label = point ? classes[odds[at] >= threshold ? at : 1 - at] : classes[odds.indexOf(Math.max(...odds))];
  if (!abstention) return label;
  if (!abstention.one_sided) return certain().length === 1 ? certain()[0] : REVIEW;
  const byErrorRate = !point && abstention.error_rate !== null;
  const flagged = byErrorRate ? certain().length === 1 && certain()[0] === positive : label === positive;
  if (flagged) return positive;
  return within(at) ? REVIEW : NOT_FLAGGED;
}

function logSumExp(values) {
  const top = Math.max(...values);
  return top + Math.log(values.reduce((sum, value) => sum + Math.exp(value - top), 0));
}
