// An OpenID provider that nobody here wrote: npm oidc-provider with its
// defaults wherever it has a default that is about the protocol. In particular
// the ID token holds nothing about the person but the sub; e-mail, name and
// groups are at the userinfo endpoint. Keys are new at every start.
//
//   node provider.mjs '{"port": 0, "client": {…}, "accounts": {"mira": {…}}}'
//
// prints the issuer once it is being served, and ends when its standard input
// does, so that it cannot outlive the test that started it.
import { createServer } from 'node:http';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { Provider } from 'oidc-provider';

const options = JSON.parse(process.argv[2]);

const signingKey = () => ({
  ...generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' }),
  alg: 'RS256', use: 'sig', kid: randomBytes(8).toString('hex'),
});

const text = (s) => String(s).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

const page = (title, body) => `<!doctype html><html lang="en"><meta charset="utf-8"><title>${text(title)}</title>
<h1>${text(title)}</h1>${body}</html>`;

function newProvider(issuer) {
  const provider = new Provider(issuer, {
    clients: options.lending ? [options.client, options.lending] : [options.client],
    jwks: { keys: [signingKey()] },
    cookies: { keys: [randomBytes(16).toString('hex')] },
    pkce: { required: () => true },
    claims: {
      openid: ['sub'], email: ['email', 'email_verified'],
      profile: ['name', 'preferred_username'], groups: ['groups'], orgs: ['orgs'],
    },
    scopes: ['openid', 'offline_access', 'things'],
    features: {
      devInteractions: { enabled: false }, backchannelLogout: { enabled: true }, revocation: { enabled: true },
    },
    // For what people lend: a refresh token that is new with each refresh. The one before is
    // good no more, and who shows it ends the grant.
    issueRefreshToken: async (ctx, client) => client.grantTypeAllowed('refresh_token'),
    rotateRefreshToken: true,
    // Without its dispatcher, which refuses loopback addresses: all of this is on one machine.
    fetch: (url, { dispatcher, ...request }) => fetch(url, request),
    interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
    findAccount: (ctx, sub) => options.accounts[sub] && {
      accountId: sub, claims: () => ({ sub, ...options.accounts[sub] }),
    },
    // Everybody who signs in has agreed: the client is the site's own. To what they lend
    // they agree on a page, and again once that is over.
    async loadExistingGrant(ctx) {
      if (ctx.oidc.client.clientId === 'lending') {
        const id = ctx.oidc.result?.consent?.grantId || ctx.oidc.session.grantIdFor('lending');
        return id && ctx.oidc.provider.Grant.find(id);
      }
      const grant = new ctx.oidc.provider.Grant({
        clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId,
      });
      grant.addOIDCScope('openid email profile groups orgs offline_access things');
      await grant.save();
      return grant;
    },
    renderError(ctx, out) {
      ctx.type = 'html';
      ctx.body = page('The provider refuses', `<p>${text(out.error)}: ${text(out.error_description)}</p>`);
    },
    ttl: {
      Session: 3600, Interaction: 600, Grant: 3600, IdToken: 600, AuthorizationCode: 60, RefreshToken: 3600,
      AccessToken: (ctx, token, client) => (client.clientId === 'lending' ? 6 : 600),
    },
  });
  // What a test counts.
  provider.on('grant.success', (ctx) => {
    console.log(`token: ${ctx.oidc.params.grant_type} of ${ctx.oidc.client.clientId}`);
    for (const secret of [ctx.body.access_token, ctx.body.refresh_token, ctx.oidc.params.code]) {
      if (secret) console.log(`secret ${secret}`);
    }
  });
  provider.on('grant.error', (ctx, err) => console.log(`token refused: ${err.error} ${err.error_detail}`));
  provider.on('grant.revoked', () => console.log('grant revoked'));
  return provider;
}

async function interact(provider, req, res) {
  const { prompt, params, session } = await provider.interactionDetails(req, res);
  if (req.method !== 'POST') {
    res.setHeader('Content-Type', 'text/html; charset=utf-8');
    if (prompt.name === 'consent') {
      res.end(page('Lend it?', `<p>${text(params.scope)}</p><form method="post"><button>Lend it</button></form>`));
      return;
    }
    const people = Object.keys(options.accounts).map((sub) => `<button name="login" value="${text(sub)}">${text(sub)}</button>`);
    res.end(page('Sign in at the provider', `<form method="post">${people.join('\n')}
<button name="cancel" value="1">Cancel</button></form>`));
    return;
  }
  if (prompt.name === 'consent') {
    const grant = new provider.Grant({ clientId: params.client_id, accountId: session.accountId });
    grant.addOIDCScope(params.scope);
    await provider.interactionFinished(req, res, { consent: { grantId: await grant.save() } },
      { mergeWithLastSubmission: true });
    return;
  }
  let body = '';
  for await (const chunk of req) body += chunk;
  const form = new URLSearchParams(body);
  const result = form.has('cancel')
    ? { error: 'access_denied', error_description: 'End-User aborted interaction' }
    : { login: { accountId: form.get('login') } };
  await provider.interactionFinished(req, res, result, { mergeWithLastSubmission: false });
}

const server = createServer();
server.listen(options.port, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = newProvider(issuer);
  const protocol = provider.callback();
  server.on('request', (req, res) => {
    if (req.url === '/me') console.log(`api: ${req.method}`);
    if (!req.url.startsWith('/interaction/')) return protocol(req, res);
    return interact(provider, req, res).catch((err) => {
      res.statusCode = 400;
      res.end(String(err));
    });
  });
  console.log(`issuer ${issuer}`);
});
process.stdin.resume().on('end', () => process.exit(0));
