package granttest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// peer is the third party of one test. It counts what it is asked.
type peer struct {
	party ThirdParty
	base  string

	mu      sync.Mutex
	issue   Issue
	serve   http.HandlerFunc // instead of the endpoint that is under test
	giveUp  context.CancelFunc
	forms   []url.Values // of requests to the token endpoint
	ends    []url.Values // of requests to the revocation endpoint
	further []string     // what else was asked
	odd     []string     // what no connector may ask
	keys    []string     // where a key was seen that is no header
}

func start(t *testing.T, p ThirdParty) *peer {
	t.Helper()
	s := &peer{party: p, issue: Issue{First: true, Access: access, Refresh: refresh, Expires: 3600}}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	s.base, s.issue.Base, s.issue.Handshake = srv.URL, srv.URL, handshake()
	return s
}

// ServeHTTP implements http.Handler.
func (s *peer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// All of it is read first: before that nobody is told that the caller has gone.
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	_ = r.ParseForm()
	r.Body = io.NopCloser(bytes.NewReader(body))
	s.mu.Lock()
	serve, issue := s.serve, s.issue
	switch r.URL.Path {
	case s.party.Token:
		s.forms = append(s.forms, r.PostForm)
	case s.party.Revocation:
		s.ends = append(s.ends, r.PostForm)
	default:
		s.further = append(s.further, r.Method+" "+r.URL.Path)
		key := s.party.Key
		seen := strings.Contains(r.RequestURI, key) || r.PostForm.Encode() != ""
		if key != "" && !s.party.KeyIsAddress && seen {
			s.keys = append(s.keys, r.URL.Path)
		}
	}
	endpoint := r.URL.Path == s.party.Token || r.URL.Path == s.party.Revocation
	if endpoint && (r.Method != http.MethodPost || r.URL.RawQuery != "") {
		s.odd = append(s.odd, r.Method+" "+r.URL.Path)
	}
	s.mu.Unlock()
	switch {
	case serve != nil && (endpoint || s.party.Key != ""):
		serve(w, r)
	case r.URL.Path == s.party.Token:
		body, _ := json.Marshal(s.party.answer(issue))
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	case endpoint:
	case s.party.Further != nil:
		s.party.Further.ServeHTTP(w, r)
	default:
		fmt.Fprint(w, "{}")
	}
}

// next is what the token endpoint gives out from now on.
func (s *peer) next(change func(*Issue)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.issue)
}

// asked returns the forms that came to the token endpoint since it was asked last.
func (s *peer) asked(t *testing.T) []url.Values {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.odd != nil {
		t.Errorf("it was asked %q; such endpoints take a POST without a query", s.odd)
	}
	forms := s.forms
	s.forms = nil
	return forms
}

// alsoAsked returns what else it was asked, since it was asked last.
func (s *peer) alsoAsked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	further := s.further
	s.further = nil
	return further
}

// answers has serve answer instead of the endpoints; nil: they do themselves. giveUp is how
// the caller gives up.
func (s *peer) answers(serve func(*peer) http.HandlerFunc, giveUp context.CancelFunc) {
	var h http.HandlerFunc
	if serve != nil {
		h = serve(s)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serve, s.giveUp = h, giveUp
}

// abandon has the caller give up.
func (s *peer) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.giveUp != nil {
		s.giveUp()
	}
}

func (s *peer) connector(t *testing.T) grant.Connector {
	t.Helper()
	client, err := oauth.NewClient(oauth.Options{Provider: "it"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	c := s.party.New(t, s.base, client)
	s.next(func(i *Issue) { i.ClientID = c.About().ClientID })
	return c
}

func says(status int, body string, header ...string) func(*peer) http.HandlerFunc {
	return func(*peer) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
}

// hangs until the caller has given up, which it does once it hangs.
func hangs(s *peer) http.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) { s.abandon(); <-r.Context().Done() }
}

// trickles an answer that would be good, one byte at a time and never to its end.
func trickles(s *peer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for i := 0; r.Context().Err() == nil; i++ {
			_, _ = w.Write([]byte(" "))
			_ = http.NewResponseController(w).Flush()
			if i == 20 {
				s.abandon()
			}
		}
	}
}

func breaksOff(hard bool) func(*peer) http.HandlerFunc {
	return func(*peer) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			if tcp, ok := conn.(interface{ SetLinger(int) error }); ok && hard {
				_ = tcp.SetLinger(0)
			}
			_ = conn.Close()
		}
	}
}

// endless answers with a gigabyte. Who reads all of it is told so at the end of the test.
func endless(s *peer) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		block := []byte(strings.Repeat(" ", 1<<20))
		for i := range 1 << 10 {
			if _, err := w.Write(block); err != nil {
				return
			}
			if i == 64 {
				s.mu.Lock()
				s.odd = append(s.odd, "and 64 MiB of the answer were read, by "+strconv.Itoa(i))
				s.mu.Unlock()
			}
		}
	}
}
