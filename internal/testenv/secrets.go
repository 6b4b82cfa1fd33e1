package testenv

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Secrets collects values that only the two ends of one exchange may see, and finds them in
// places where they must not be. It is safe for concurrent use.
type Secrets struct {
	mu     sync.Mutex        // guards values
	values map[string]string // what it is, by value
}

// shortest is the least length of a secret that is not found by accident.
const shortest = 12

// Add adds a value.
func (s *Secrets) Add(what, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values == nil {
		s.values = map[string]string{}
	}
	if len(value) >= shortest {
		s.values[value] = what
	}
}

// OfProvider adds the secrets that f has issued and received: tokens, codes, nonces,
// challenges, verifiers and credentials.
func (s *Secrets) OfProvider(f *Faults) {
	for _, body := range f.Answers(Token) {
		var answer map[string]any
		if json.Unmarshal([]byte(body), &answer) != nil {
			continue
		}
		for _, name := range []string{"access_token", "refresh_token", "id_token"} {
			token, _ := answer[name].(string)
			s.Add(name, token)
			for _, part := range strings.Split(token, ".")[1:] { // the head of a JWT is no secret
				s.Add("a part of the "+name, part)
			}
		}
	}
	for _, r := range f.Requests(Token) {
		if form, err := url.ParseQuery(string(r.Body)); err == nil {
			for _, name := range []string{"code", "code_verifier", "client_secret"} {
				s.Add(name, form.Get(name))
			}
		}
		_, credentials, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		s.Add("credentials", credentials)
		if raw, err := base64.StdEncoding.DecodeString(credentials); err == nil {
			_, secret, _ := strings.Cut(string(raw), ":")
			s.Add("client_secret", secret)
		}
	}
	for _, r := range f.Requests(Authorize) {
		if _, query, ok := strings.Cut(r.Target, "?"); ok {
			s.ofQuery(query, "state", "nonce", "code_challenge")
		}
	}
}

// OfPage adds the secrets that a browser received: cookies, and the codes and states in
// addresses.
func (s *Secrets) OfPage(p Page) {
	for _, hop := range p.Hops {
		s.ofQuery(hop.URL.RawQuery, "code", "state", "nonce", "code_challenge")
		for _, c := range hop.SetCookie {
			s.Add("the cookie "+c.Name, c.Value)
		}
	}
}

func (s *Secrets) ofQuery(query string, names ...string) {
	q, err := url.ParseQuery(query)
	if err != nil {
		return
	}
	for _, name := range names {
		s.Add(name, q.Get(name))
	}
}

// Has reports whether a value of this name was added. A test should check that, because a
// value that was not added is never found.
func (s *Secrets) Has(what string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(slices.Collect(maps.Values(s.values)), what)
}

// In returns the names of the values that text contains, plain or encoded for an address.
func (s *Secrets) In(text string) []string {
	return s.find(text, func(value string) []string { return []string{value, url.QueryEscape(value)} })
}

// InAnyForm is In for files and dumps. It also finds a value in hexadecimal, in base64 within
// that of a longer text, and the bytes that the value itself is the base64 of. What a dump
// of PostgreSQL has of a column of bytes, \x and hexadecimal, is looked at as bytes too.
func (s *Secrets) InAnyForm(text string) []string {
	for _, column := range byteColumn.FindAllStringSubmatch(text, -1) {
		if raw, err := hex.DecodeString(column[1]); err == nil {
			text += "\n" + string(raw)
		}
	}
	return s.find(text, storedForms)
}

var byteColumn = regexp.MustCompile(`\\x((?:[0-9a-f]{2})+)`)

// storedForms are the texts as which value can stand in a file.
func storedForms(value string) []string {
	h := hex.EncodeToString([]byte(value))
	forms := []string{value, url.QueryEscape(value), h, strings.ToUpper(h)}
	for before := range 3 { // the bytes of a longer text that share a group of three with it
		encoded := base64.RawStdEncoding.EncodeToString(append(make([]byte, before), value...))
		encoded = encoded[(before*8+5)/6 : (before+len(value))*8/6]
		forms = append(forms, encoded, strings.NewReplacer("+", "-", "/", "_").Replace(encoded))
	}
	for _, encoding := range []*base64.Encoding{base64.RawURLEncoding, base64.StdEncoding} {
		if raw, err := encoding.DecodeString(value); err == nil && len(raw) >= shortest {
			forms = append(forms, string(raw), hex.EncodeToString(raw))
		}
	}
	return forms
}

// find returns the names of the values of which text contains a form.
func (s *Secrets) find(text string, forms func(value string) []string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var seen []string
	for value, what := range s.values {
		if slices.ContainsFunc(forms(value), func(form string) bool { return strings.Contains(text, form) }) {
			seen = append(seen, what)
		}
	}
	slices.Sort(seen)
	return slices.Compact(seen)
}
