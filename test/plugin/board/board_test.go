package board_test

import (
	"net/http"
	"testing"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/command"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/oauth"

	"example.com/noticeboard/board"
)

func TestTheContractOfConnectors(t *testing.T) {
	granttest.TestConnector(t, granttest.ThirdParty{
		New: func(t *testing.T, base string, client *oauth.Client) grant.Connector {
			c, err := board.New(command.Settings{ID: "board", BaseURL: base, Owner: grant.OwnedByUser,
				Options: map[string]string{"floor": "3"}, OAuth: client})
			if err != nil {
				t.Fatal(err)
			}
			return c
		},
		Key:     "canary-badge-0123",
		Account: grant.Account{ID: "7", Name: "Mira"},
		Further: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"id":"7","name":"Mira"}`))
		}),
	})
}
