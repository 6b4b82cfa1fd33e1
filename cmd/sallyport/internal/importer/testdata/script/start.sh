#!/bin/bash
set -e

echo "oauth2_proxy begins"
exec oauth2_proxy -provider="${PROVIDER}" \
  -http-address=http://:$PORT -upstream=http://127.0.0.1:8080 \
  -redirect-url=https://${APP}/oauth2/callback \
  -cookie-domain=${APP} -cookie-secure=false \
  -email-domain="*" -set-xauthrequest=true &
