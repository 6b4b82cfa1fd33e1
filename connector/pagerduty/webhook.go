package pagerduty

import (
	"net/http"
	"time"

	"github.com/sallyport-proxy/sallyport/connector/pagerdutyapi"
	"github.com/sallyport-proxy/sallyport/grant"
)

var _ grant.WebhookReceiver = (*Connector)(nil)

// JudgeEvent implements grant.WebhookReceiver. A webhook is of a subscription that has a secret
// of its own, and not of the scopes of a grant.
func (*Connector) JudgeEvent(secrets []string, h http.Header, body []byte, now time.Time) (grant.SignedEvent, error) {
	return pagerdutyapi.JudgeWebhook(secrets, h, body, now)
}
