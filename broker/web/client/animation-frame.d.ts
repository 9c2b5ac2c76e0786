/** @param {() => void} callback called once; the returned function cancels it @returns {() => void} */
export function nextFrame(callback: () => void): () => void;
