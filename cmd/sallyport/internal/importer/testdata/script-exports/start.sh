#!/bin/sh
export OAUTH2_PROXY_CLIENT_ID=${HUB_CLIENT}
export OAUTH2_PROXY_ALLOWED_GROUPS="staff,admins"

exec /bin/oauth2-proxy \
  --provider=oidc \
  --oidc-issuer-url=https://sso.example.com \
  --redirect-url=https://hub.example.com/oauth2/callback \
  --cookie-secret=$(tr -dc a-z < /dev/urandom | head -c 32) \
  --client-secret=`cat /run/secrets/client | tr -d '\n'` \
  --email-domain={{ .domains | join "," }} \
  --email-domain=example.com \
  --upstream=http://127.0.0.1:8080
