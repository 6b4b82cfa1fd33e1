package pagerdutykey

import (
	"net/http"
	"time"

	"github.com/sallyport-proxy/sallyport/connector/pagerdutyapi"
	"github.com/sallyport-proxy/sallyport/grant"
)

var _ grant.WebhookReceiver = (*Connector)(nil)

// JudgeEvent implements grant.WebhookReceiver. Every access reads what webhooks tell.
func (*Connector) JudgeEvent(secrets []string, h http.Header, body []byte, now time.Time) (grant.SignedEvent, error) {
	return pagerdutyapi.JudgeWebhook(secrets, h, body, now)
}
