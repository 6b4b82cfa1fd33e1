package caldav

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/egress"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
	"github.com/sallyport-proxy/sallyport/oauth"
)

const (
	// maxFound is the longest answer that says where something is, in bytes.
	maxFound = 256 << 10
	// mostHops is how many redirects are followed on the way to one answer.
	mostHops  = 4
	mostHomes = 8
)

// search finds where the calendars of an account are, with its credential.
type search struct {
	c             *Connector
	ctx           context.Context
	authorization string
}

// found is where they are.
type found struct {
	origin    string
	below     []string // paths, each with a slash at its end, below origin
	principal string   // a path that names the account at the server
}

// calendars asks for the principal (RFC 5397) where the operator says, and where that brings
// nothing at the well-known address (RFC 6764 §5), and the principal for its home (RFC 4791
// §6.2.1). A server may forbid to ask at one place who may ask at the other (403).
func (s *search) calendars() (found, error) {
	first, err := s.propfind(s.c.base.JoinPath("/"))
	forbidden := errors.Is(err, errForbidden)
	if e, ok := errors.AsType[*grant.Error](err); ok && e.Class != grant.Ours && !forbidden {
		return found{}, err
	}
	if err != nil || first.principal == nil {
		refused := err
		known := url.URL{Scheme: s.c.base.Scheme, Host: s.c.base.Host, Path: "/.well-known/caldav"}
		first, err = s.propfind(&known)
		if e, ok := errors.AsType[*grant.Error](err); ok && e.Class == grant.Ours && forbidden {
			return found{}, refused
		}
		if err != nil {
			return found{}, err
		}
	}
	if first.principal == nil {
		return found{}, notFound("the server names no principal")
	}
	own := first
	if len(first.homes) == 0 || first.principal.String() != first.at.String() {
		if own, err = s.propfind(first.principal); err != nil {
			return found{}, err
		}
	}
	if len(own.homes) == 0 {
		return found{}, notFound("the principal has no calendars")
	}
	at, principals := first.at, []*url.URL{first.principal}
	if home := own.homes[0]; !sameOrigin(home, at) {
		at = &url.URL{Scheme: home.Scheme, Host: home.Host, Path: "/"}
		there, err := s.elsewhere(at)
		if err != nil {
			return found{}, err
		}
		if there != nil {
			principals = append(principals, there)
		}
	}
	return place(at, own.homes, principals)
}

// elsewhere asks another host, at which the calendars are, whose account it is, as clients will
// when they have nothing but the gateway's address (iCloud's hosts each say it for the accounts
// they have). A host that says nothing may have calendars all the same; one that may not be
// reached has none for us.
func (s *search) elsewhere(at *url.URL) (principal *url.URL, err error) {
	if err := s.c.near(at); err != nil {
		return nil, &grant.Error{Class: grant.Ours, Reason: Elsewhere, Err: err}
	}
	there, err := s.propfind(at)
	if e, ok := errors.AsType[*grant.Error](err); ok && e.Class == grant.Ours && e.Reason != connector.NotPublic {
		return nil, nil
	}
	return there.principal, err
}

func notFound(why string) error {
	return &grant.Error{Class: grant.Ours, Reason: NoCalendars, Err: errors.New(why)}
}

// place is what the addresses of homes and of principals have in common. Clients begin at its
// origin, so that is where somebody said whose account it is (at), if all are below.
func place(at *url.URL, homes, principals []*url.URL) (found, error) {
	home := homes[0]
	if len(homes) > mostHomes {
		return found{}, notFound("the account has too many homes")
	}
	all := slices.Clone(homes)
	for _, principal := range principals {
		if sameOrigin(principal, home) {
			all = append(all, principal)
		}
	}
	prefix := strings.TrimSuffix(at.EscapedPath(), "/")
	outside := func(u *url.URL) bool { return !strings.HasPrefix(u.EscapedPath(), prefix+"/") }
	if !sameOrigin(at, home) || slices.ContainsFunc(all, outside) {
		prefix = ""
	}
	f := found{origin: home.Scheme + "://" + home.Host + prefix, principal: principals[0].EscapedPath()}
	for _, u := range all {
		if !sameOrigin(u, home) {
			return found{}, notFound("the calendars of the account are at several hosts")
		}
		path := strings.TrimSuffix(strings.TrimPrefix(u.EscapedPath(), prefix), "/") + "/"
		if path == "/" || strings.ContainsAny(path, "\r\n") {
			return found{}, notFound("the calendars of the account have no path of their own")
		}
		if !slices.Contains(f.below, path) {
			f.below = append(f.below, path)
		}
	}
	return f, nil
}

// trusts reports whether a host is one that the operator named.
func (c *Connector) trusts(u *url.URL) bool {
	return sameOrigin(u, c.base) || c.hosts.Allow(u)
}

// near reports whether the credential may be sent to an address: to the operator's host, to
// those that they allow, and over https to others of the same registrable domain.
func (c *Connector) near(u *url.URL) error {
	if u.Opaque != "" || u.User != nil || u.Hostname() == "" ||
		u.Scheme != "https" && !(u.Scheme == "http" && hostname.IsLoopback(u.Hostname()) && c.trusts(u)) {
		return errors.New("the calendars are at no https address")
	}
	if c.trusts(u) {
		return nil
	}
	theirs, err := publicsuffix.EffectiveTLDPlusOne(strings.ToLower(u.Hostname()))
	ours, ourErr := publicsuffix.EffectiveTLDPlusOne(strings.ToLower(c.base.Hostname()))
	if err != nil || ourErr != nil || theirs != ours || net.ParseIP(u.Hostname()) != nil {
		return errors.New("the calendars are at a host of another domain than base_url")
	}
	return nil
}

// sameOrigin compares scheme, host and port; the port of the scheme may be left out.
func sameOrigin(a, b *url.URL) bool { return a.Scheme == b.Scheme && authority(a) == authority(b) }

// authority is host and port, in one spelling.
func authority(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// answer is what a resource says of an account.
type answer struct {
	at        *url.URL
	principal *url.URL // nil: it names none
	homes     []*url.URL
}

const question = `<?xml version="1.0" encoding="utf-8"?>` + "\n" +
	`<propfind xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><prop><current-user-principal/>` +
	`<C:calendar-home-set/></prop></propfind>`

// propfind asks an address, and where that leads to, as far as the credential may go there.
func (s *search) propfind(at *url.URL) (answer, error) {
	for range mostHops {
		if err := s.c.near(at); err != nil {
			return answer{}, &grant.Error{Class: grant.Ours, Reason: Elsewhere, Err: err}
		}
		req, err := http.NewRequestWithContext(s.ctx, "PROPFIND", at.String(), strings.NewReader(question))
		if err != nil {
			return answer{}, &grant.Error{Class: grant.Ours, Reason: connector.RequestRefused,
				Err: errors.New("the request cannot be made")}
		}
		req.Header.Set("Authorization", s.authorization)
		req.Header.Set("Depth", "0")
		req.Header.Set("Content-Type", `application/xml; charset="utf-8"`)
		client := s.c.guarded
		if s.c.trusts(at) {
			client = s.c.trusted
		}
		res, body, err := client.Answer(req, "discovery")
		if err != nil {
			return answer{}, unanswered(err)
		}
		if res.StatusCode < 300 || res.StatusCode >= 400 {
			if err := judge(res); err != nil {
				return answer{}, err
			}
			return read(at, body)
		}
		to, err := at.Parse(res.Header.Get("Location"))
		if err != nil || res.Header.Get("Location") == "" {
			return answer{}, notFound("a redirect leads nowhere")
		}
		to.RawQuery, to.Fragment = "", ""
		if to.String() == at.String() {
			return answer{}, notFound("a redirect leads to where it is")
		}
		at = to
	}
	return answer{}, notFound("there are too many redirects")
}

var errForbidden = errors.New("the answer has status 403")

// judge says what an answer means for the account.
func judge(res *http.Response) error {
	status := res.StatusCode
	failed := func(class grant.Class, reason string) error {
		return &grant.Error{Class: class, Reason: reason, Err: fmt.Errorf("the answer has status %d", status)}
	}
	refused := func(cause error) error {
		return &grant.Error{Class: grant.Yours, Reason: PasswordRefused, Err: cause,
			Sentence: "The calendar server does not accept this user name with this password. Many servers take an " +
				"app password only, which is made there."}
	}
	switch {
	case status == http.StatusMultiStatus:
		return nil
	case status == http.StatusUnauthorized && otherThanBasic(res.Header["Www-Authenticate"]):
		return &grant.Error{Class: grant.Ours, Reason: NoBasic, Err: errors.New("the server does not take a password " +
			"as it is (Basic), but something else, such as Digest or OAuth")}
	case status == http.StatusUnauthorized:
		return refused(errors.New("the answer has status 401"))
	case status == http.StatusForbidden:
		return refused(errForbidden)
	case status >= 500 && status != http.StatusNotImplemented, status == http.StatusTooManyRequests,
		status == http.StatusRequestTimeout:
		return failed(grant.Later, connector.Busy)
	case status >= 200 && status < 300, status == http.StatusNotFound, status == http.StatusMethodNotAllowed,
		status == http.StatusGone, status == http.StatusNotImplemented:
		return failed(grant.Ours, connector.WrongEndpoint)
	}
	return failed(grant.Ours, connector.RequestRefused)
}

// otherThanBasic reports whether the challenges of an answer (RFC 9110 §11.6.1), of which it may
// have several in one line, are such as a password is no answer to. iCloud has one of its own
// beside Basic; a scheme that is not known says nothing.
func otherThanBasic(lines []string) bool {
	other := false
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			scheme, _, _ := strings.Cut(strings.TrimSpace(part), " ")
			switch strings.ToLower(scheme) {
			case "basic":
				return false
			case "digest", "bearer", "negotiate", "ntlm":
				other = true
			}
		}
	}
	return other
}

func unanswered(err error) error {
	e, ok := errors.AsType[*oauth.Error](err)
	switch {
	case errors.Is(err, egress.ErrNotPublic):
		return &grant.Error{Class: grant.Ours, Reason: connector.NotPublic, Err: egress.ErrNotPublic}
	case !ok:
		return &grant.Error{Class: grant.Later, Reason: connector.NoAnswer, Err: errors.New("the request failed")}
	case e.Status == 0 && e.Sent == oauth.Never:
		return &grant.Error{Class: grant.Later, Reason: connector.Unreachable, Err: e}
	}
	return &grant.Error{Class: grant.Later, Reason: connector.NoAnswer, RetryAfter: e.RetryAfter, Err: e}
}

// multistatus is what of one we read (RFC 4918 §14.16).
type multistatus struct {
	XMLName   xml.Name `xml:"DAV: multistatus"`
	Propstats []struct {
		Status string `xml:"DAV: status"`
		Prop   struct {
			Principal hrefs `xml:"DAV: current-user-principal"`
			Home      hrefs `xml:"urn:ietf:params:xml:ns:caldav calendar-home-set"`
		} `xml:"DAV: prop"`
	} `xml:"DAV: response>propstat"`
}

type hrefs struct {
	List []string `xml:"DAV: href"`
}

func read(at *url.URL, body []byte) (answer, error) {
	var m multistatus
	if err := xml.Unmarshal(body, &m); err != nil {
		return answer{}, notFound("the answer is not a multistatus of WebDAV")
	}
	a := answer{at: at}
	for _, p := range m.Propstats {
		if fields := strings.Fields(p.Status); len(fields) > 1 && fields[1] != "200" {
			continue
		}
		for _, href := range p.Prop.Principal.List {
			if u, err := at.Parse(strings.TrimSpace(href)); err == nil && a.principal == nil {
				a.principal = u
			}
		}
		for _, href := range p.Prop.Home.List {
			if u, err := at.Parse(strings.TrimSpace(href)); err == nil {
				a.homes = append(a.homes, u)
			}
		}
	}
	return a, nil
}
