/** Sign-in at an OpenID provider: authorization code with PKCE, for a public client (OpenID Connect Core 1.0 section 3.1;
 * RFC 7636; RFC 9700 section 2.1). Tokens are kept in memory only. */

/** What a sign-in needs when its page is loaded again. */
const PENDING = "runcast:oidc";
/** That somebody has signed in here: then a page that is loaded tries it without asking them. */
const KNOWN = "runcast:oidc-known";
const TIMEOUT_MS = 10_000;
/** By how much the clocks of the provider and of this machine may differ. */
const LEEWAY_SECONDS = 120;
/** The code of an `OidcError` for an answer that nobody here asked for. */
export const NOT_OURS = "not_ours";

/** @typedef {{issuer: string, clientId: string, scope: string, audience?: string, origins: string[]}} OidcConfig
 * `origins`: those that this page may call */
/** @typedef {{accessToken: string, refreshToken: string | null, idToken: string | null}} OidcTokens */

export class OidcError extends Error {
  /** @param {string} message @param {string} [code] the provider's, such as `login_required` */
  constructor(message, code = "") {
    super(message);
    this.code = code;
  }
}

export class OidcClient {
  /** @param {OidcConfig} config */
  constructor(config) {
    this._config = config;
    this._redirectUri = location.origin + "/";
    this._found = null;
  }

  /** The provider's host, for people. */
  get name() {
    return new URL(this._config.issuer).host;
  }

  /** Whether somebody was signed in here, and has not signed out. */
  get isKnown() {
    return read(localStorage, KNOWN) !== null;
  }

  forget() {
    write(localStorage, KNOWN, null);
  }

  /** Leave for the provider; the page `to` is shown after the return. `isSilent`: only if nobody needs to be asked.
   * Raises `OidcError`.
   * @param {string} to @param {{isSilent?: boolean}} [options] */
  async leave(to, { isSilent = false } = {}) {
    const { authorization_endpoint: endpoint } = await this._discover();
    const pending = { state: random(), nonce: random(), verifier: random(), to };
    write(sessionStorage, PENDING, JSON.stringify(pending));
    const url = new URL(endpoint);
    const asked = {
      response_type: "code",
      client_id: this._config.clientId,
      redirect_uri: this._redirectUri,
      scope: this._config.scope,
      state: pending.state,
      nonce: pending.nonce,
      code_challenge: base64url(await sha256(pending.verifier)),
      code_challenge_method: "S256",
      ...(this._config.audience ? { audience: this._config.audience } : {}),
      ...(isSilent ? { prompt: "none" } : {}),
    };
    for (const [name, value] of Object.entries(asked)) url.searchParams.set(name, value);
    location.assign(url);
  }

  /** Whether the page was loaded by the provider's redirect. */
  static get hasReturned() {
    const query = new URLSearchParams(location.search);
    return query.has("state") && (query.has("code") || query.has("error"));
  }

  /** The tokens of a sign-in that has returned, and the page to show. The address is clean afterwards, and what was kept
   * for it is gone. Raises `OidcError`.
   * @returns {Promise<{tokens: OidcTokens, to: string}>} */
  async finish() {
    const query = new URLSearchParams(location.search);
    const pending = parsed(read(sessionStorage, PENDING));
    write(sessionStorage, PENDING, null);
    const isOurs = pending !== null && pending.state === query.get("state");
    history.replaceState(null, "", location.pathname + (isOurs && pending.to ? "#" + pending.to : location.hash));
    if (!isOurs) throw new OidcError("The sign-in that came back was not begun in this tab. Try again.", NOT_OURS);
    await this._checkIssuer(query.get("iss"));
    const code = query.get("error");
    if (code !== null) throw new OidcError(query.get("error_description") ?? code, code);
    const tokens = await this._tokens({
      grant_type: "authorization_code",
      code: query.get("code") ?? "",
      redirect_uri: this._redirectUri,
      code_verifier: pending.verifier,
    });
    const first = claims(tokens.idToken);
    this._check(first);
    if (first.nonce !== pending.nonce) throw new OidcError("The provider's answer is for another sign-in.");
    write(localStorage, KNOWN, "1");
    return { tokens, to: pending.to };
  }

  /** Newer tokens, without anybody being asked. Raises `OidcError` if there must be somebody.
   * @param {OidcTokens} tokens @returns {Promise<OidcTokens>} */
  async refresh({ refreshToken, idToken }) {
    if (refreshToken === null) throw new OidcError("the provider gave no refresh token", "interaction_required");
    const fresh = await this._tokens({ grant_type: "refresh_token", refresh_token: refreshToken });
    if (fresh.idToken !== null) this._checkRenewed(claims(fresh.idToken), claims(idToken));
    return { ...fresh, refreshToken: fresh.refreshToken ?? refreshToken, idToken: fresh.idToken ?? idToken };
  }

  /** End the session at the provider as well, if it has a page for that (OpenID Connect RP-Initiated Logout 1.0).
   * @param {OidcTokens} tokens */
  async leaveForGood({ idToken }) {
    this.forget();
    const { end_session_endpoint: endpoint } = await this._discover();
    if (!endpoint) return;
    const url = new URL(endpoint);
    url.searchParams.set("client_id", this._config.clientId);
    url.searchParams.set("post_logout_redirect_uri", this._redirectUri);
    if (idToken !== null) url.searchParams.set("id_token_hint", idToken);
    location.assign(url);
  }

  /** The provider's metadata (OpenID Connect Discovery 1.0 section 4). */
  async _discover() {
    if (this._found === null) {
      const { issuer } = this._config;
      const found = await answer(fetch(issuer.replace(/\/$/, "") + "/.well-known/openid-configuration", init()));
      if (found.issuer !== issuer) throw new OidcError(`The provider says that it is ${String(found.issuer)}.`);
      this._found = found;
    }
    return this._found;
  }

  async _tokens(form) {
    const { token_endpoint: endpoint } = await this._discover();
    const { origin } = new URL(endpoint);
    if (!this._config.origins.includes(origin))
      throw new OidcError(`The provider's tokens are at ${origin}, which RUNCAST_OIDC_ORIGINS has to name.`);
    const body = new URLSearchParams({ ...form, client_id: this._config.clientId });
    const given = await answer(fetch(endpoint, init({ method: "POST", body })));
    if (typeof given.access_token !== "string") throw new OidcError("The provider gave no access token.");
    return {
      accessToken: given.access_token,
      refreshToken: typeof given.refresh_token === "string" ? given.refresh_token : null,
      idToken: typeof given.id_token === "string" ? given.id_token : null,
    };
  }

  /** Who answered the sign-in, also with an error (RFC 9207 section 2.4): it must be said if the provider always says it.
   * @param {string | null} given */
  async _checkIssuer(given) {
    const isRequired = (await this._discover()).authorization_response_iss_parameter_supported === true;
    if (given === null ? isRequired : given !== this._config.issuer)
      throw new OidcError("Another provider answered the sign-in.");
  }

  /** Section 3.1.3.7. The token came straight from the provider over TLS, which stands for its signature. */
  _check({ iss, aud, azp, sub, exp }) {
    const { issuer, clientId } = this._config;
    const isFor = [aud].flat().includes(clientId) && (azp === undefined || azp === clientId);
    if (iss !== issuer || !isFor || typeof sub !== "string" || sub === "")
      throw new OidcError("The provider's answer is for another sign-in.");
    if (!(exp + LEEWAY_SECONDS > Date.now() / 1000))
      throw new OidcError("The provider's answer is out of date; is the clock of this machine right?");
  }

  /** Section 12.2: it is about the same sign-in as the first. */
  _checkRenewed(renewed, first) {
    this._check(renewed);
    const isSame = (name) => renewed[name] === undefined || renewed[name] === first[name];
    if (renewed.sub !== first.sub || !["auth_time", "nonce"].every(isSame) || renewed.azp !== first.azp)
      throw new OidcError("The provider's answer is for another sign-in.");
  }
}

function init(more = {}) {
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  return { ...more, signal, credentials: "omit", cache: "no-store", headers: { Accept: "application/json" } };
}

async function answer(responding) {
  let response;
  try {
    response = await responding;
  } catch {
    throw new OidcError("The provider could not be reached.");
  }
  const body = parsed(await response.text());
  if (response.ok && body !== null) return body;
  throw new OidcError(body?.error_description ?? `The provider answered ${response.status}.`, body?.error);
}

function claims(token) {
  const payload = token?.split(".")[1] ?? "";
  try {
    const bytes = Uint8Array.from(atob(payload.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0));
    return parsed(new TextDecoder().decode(bytes)) ?? {};
  } catch {
    return {};
  }
}

/** The object of a JSON text, or null. */
function parsed(text) {
  try {
    const value = JSON.parse(text ?? "");
    return typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}

function random() {
  return base64url(crypto.getRandomValues(new Uint8Array(32)));
}

async function sha256(text) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
}

function base64url(bytes) {
  return btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replace(/=+$/, "");
}

function read(storage, key) {
  try {
    return storage.getItem(key);
  } catch {
    return null;
  }
}

function write(storage, key, value) {
  try {
    if (value === null) storage.removeItem(key);
    else storage.setItem(key, value);
  } catch {
    // Storage is forbidden: a sign-in cannot return then, and says so.
  }
}
