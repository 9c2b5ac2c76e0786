/** Texts and thoughts that come in pieces: what is said after a call stands below the call, in a row of its own. */

/** Rows of one message. */
const MAX_PARTS = 200;

/** Add a piece to its row, or begin the next row of the message. */
export function streamed(story, kind, event, data) {
  const id = `${kind} ${data.messageId}`;
  let item = story.texts.get(id);
  if (!item || goesOnBelow(story, item, event)) {
    const earlier = item ? [...item.earlier, item] : [];
    item = story.add(kind, event, { text: "", messageId: data.messageId, isComplete: false, earlier });
    story.index(story.texts, id, item);
  }
  item.text += data.delta;
  story.grow(item);
}

/** Whether a text goes on in a row of its own, because its agent did something since; not in the middle of a block of
 * code. */
function goesOnBelow(story, item, event) {
  if (item.breaks === story.breaksOf(event.agent) || item.earlier.length >= MAX_PARTS) return false;
  return (item.text.match(/^ {0,3}```/gm)?.length ?? 0) % 2 === 0;
}

/** The whole text of a message, of which the rows have what was streamed. */
export function settle(story, item, text) {
  const before = item.earlier?.map((part) => part.text).join("") ?? "";
  if (text.startsWith(before)) item.text = text.slice(before.length);
  else {
    story.remove(item.earlier);
    Object.assign(item, { text, earlier: [] });
  }
}
