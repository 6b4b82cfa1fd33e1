package caldav_test

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/connector/caldav"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// multistatus is an answer of WebDAV with properties of one resource.
func multistatus(at, properties string) string {
	return `<?xml version="1.0"?><d:multistatus xmlns:d="DAV:" xmlns:c="urn:ietf:params:xml:ns:caldav"><d:response>` +
		`<d:href>` + at + `</d:href><d:propstat><d:prop>` + properties + `</d:prop><d:status>HTTP/1.1 200 OK</d:status>` +
		`</d:propstat></d:response></d:multistatus>`
}

func principalIs(href string) string {
	return `<d:current-user-principal><d:href>` + href + `</d:href></d:current-user-principal>`
}

func homeIs(hrefs ...string) string {
	return `<c:calendar-home-set><d:href>` + strings.Join(hrefs, `</d:href><d:href>`) + `</d:href></c:calendar-home-set>`
}

// server answers the questions of discovery: a principal for paths, and a home for those.
func server(principals, homes map[string]string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var asked struct {
			XMLName xml.Name `xml:"DAV: propfind"`
		}
		if r.Method != "PROPFIND" || r.Header.Get("Depth") != "0" || err != nil || xml.Unmarshal(body, &asked) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		var properties string
		if href, ok := principals[r.URL.Path]; ok {
			properties += principalIs(href)
		}
		if href, ok := homes[r.URL.Path]; ok {
			properties += homeIs(href)
		}
		if properties == "" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/xml; charset=utf-8")
		w.WriteHeader(http.StatusMultiStatus)
		fmt.Fprint(w, multistatus(r.URL.Path, properties))
	}
}

func calendars(t *testing.T, base string, client *oauth.Client, allow ...string) *caldav.Connector {
	t.Helper()
	c, err := caldav.New(caldav.Options{ID: "dav", BaseURL: base, AllowHosts: allow, OAuth: client})
	testenv.Check(t, err)
	return c
}

func TestTheContractOfConnectors(t *testing.T) {
	granttest.TestConnector(t, granttest.ThirdParty{
		New: func(t *testing.T, base string, client *oauth.Client) grant.Connector {
			return calendars(t, base, client)
		},
		Further: server(map[string]string{"/": "/principals/mira/"}, map[string]string{"/principals/mira/": "/dav/mira/"}),
		Account: grant.Account{ID: "/principals/mira/", Name: "mira"},
		Key:     "mira:canary-app-password", Probes: 2,
	})
}
