#!/bin/sh
# Everything comes from the container's environment.
exec /bin/oauth2_proxy \
  --http-address=$LISTEN \
  --upstream=$APP \
  --provider=$PROVIDER \
  --client-id=$CLIENT_ID \
  --client-secret=$CLIENT_SECRET \
  --github-org=$ORGANIZATION \
  --github-team=$TEAM \
  --email-domain=$DOMAIN \
  --redirect-url=$CALLBACK \
  --approval-prompt=$PROMPT \
  --cookie-name=$COOKIE_NAME \
  --cookie-secret=$COOKIE_SECRET \
  --cookie-secure=$COOKIE_SECURE
