/** @param {() => void} callback called once; the returned function prevents it @returns {() => void} */
export function nextFrame(callback: () => void): () => void;
