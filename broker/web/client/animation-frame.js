/** The next animation frame, or a timer if there is none (hidden pages, Node). */
const FRAME_MS = 16;
const HIDDEN_MS = 250;

/** @param {() => void} callback called once; the returned function cancels it @returns {() => void} */
export function nextFrame(callback) {
  if (typeof requestAnimationFrame !== "function") {
    const timer = setTimeout(callback, FRAME_MS);
    return () => clearTimeout(timer);
  }
  const cancel = () => {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
  };
  const show = () => {
    cancel();
    callback();
  };
  const frame = requestAnimationFrame(show);
  const timer = setTimeout(show, HIDDEN_MS); // a hidden page gets no frames, and a page may become hidden at any time
  return cancel;
}
