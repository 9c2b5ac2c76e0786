/** Ids. Pure, but for chance and the clock. */

/** @param {number} bytes */
export function randomHex(bytes) {
  return Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (each) => each.toString(16).padStart(2, "0")).join(
    "",
  );
}

/** `ex_` and 26 characters that sort by time. */
export function newExecutionId() {
  const digits = "0123456789abcdefghjkmnpqrstvwxyz";
  let value = (BigInt(Date.now()) << 80n) | BigInt("0x" + randomHex(10));
  let id = "";
  for (let at = 0; at < 26; at += 1) {
    id = digits[Number(value & 31n)] + id;
    value >>= 5n;
  }
  return "ex_" + id;
}
