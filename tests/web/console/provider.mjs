// An OpenID provider whose people sign in with any name: `node provider.mjs PORT REDIRECT_URI…`. Its access tokens are
// JWTs for the edges, and live for TTL_SECONDS.
import { Provider } from "oidc-provider";

const [port, ...redirectUris] = process.argv.slice(2);
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: "runcast-console",
      token_endpoint_auth_method: "none",
      redirect_uris: redirectUris,
      post_logout_redirect_uris: redirectUris,
      grant_types: ["authorization_code", "refresh_token"],
    },
  ],
  clientBasedCORS: () => true,
  issueRefreshToken: () => true,
  rotateRefreshToken: true,
  pkce: { required: () => true },
  scopes: ["openid", "profile", "executions:read", "executions:write"],
  ttl: { AccessToken: Number(process.env.TTL_SECONDS) },
  features: {
    resourceIndicators: {
      enabled: true,
      defaultResource: () => "urn:runcast",
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: "executions:read executions:write",
        audience: "runcast",
        accessTokenFormat: "jwt",
        accessTokenTTL: Number(process.env.TTL_SECONDS),
      }),
    },
    rpInitiatedLogout: { enabled: true },
  },
});
// Providers may have their token endpoint on another origin than their issuer; older ones do not say who answers.
provider.use(async (context, next) => {
  await next();
  const to = context.response.get("Location") ?? "";
  if (process.env.WITHOUT_ISSUER && redirectUris.some((uri) => to.startsWith(uri)))
    context.set("Location", to.replace(/&iss=[^&]*/, ""));
  if (process.env.TOKEN_ORIGIN && context.oidc?.route === "discovery")
    context.body.token_endpoint = context.body.token_endpoint.replace(provider.issuer, process.env.TOKEN_ORIGIN);
});
provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));
