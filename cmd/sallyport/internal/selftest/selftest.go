// Package selftest sends what an attacker would send through a live chain of front proxy,
// Sallyport and app, and says what leaked and which line of the front is missing.
//
//	cases.go    what is sent, and what must become of it
//	wire.go     HTTP/1.1 byte by byte: net/http would correct what is to be wrong
//	http2.go    the same of HTTP/2
//	echo.go     what stands in the place of the app, and keeps what arrives
//	fix.go      the line to add, for each front
//	report.go   what people and programs read
//
// It signs nobody in, follows no redirect, prints no cookie, and sends nothing that could
// reach another person's connection: request smuggling is not tried. It knows neither the
// configuration nor the rules of Sallyport: cmd/sallyport reads the names of headers out of
// a configuration where it is given one.
package selftest

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options say what is tested, and with what. URL, Timeout, Names and Prefix are required.
type Options struct {
	URL     *url.URL
	Connect string         // the front's address, where the URL's name does not lead there
	Echo    net.Listener   // where the echo answers; nil: there is none
	Cookie  string         // the Cookie header of somebody who is signed in; "": nobody is
	Roots   *x509.CertPool // who may vouch for the front; nil: those of the system
	Timeout time.Duration  // of each request
	Names   []string       // the headers that Sallyport writes for the app, the assertion's included
	Prefix  string         // of Sallyport's own pages, without a slash at its end
}

// ErrUnreachable wraps why nobody answers at the URL.
var ErrUnreachable = errors.New("not reachable")

// errSilent ends a run whose front no longer answers in time.
var errSilent = errors.New("the front does not answer in time")

const (
	// atOnce is how many requests are on their way together.
	atOnce = 4
	// silences are how many requests in a row may go without an answer in time: a front that
	// hangs would hold up a run for each of them.
	silences = 3
)

// Run sends all cases and judges what became of them.
func Run(ctx context.Context, o Options) (*Report, error) {
	r := &run{Options: o, nonce: random(16), wire: newWire(o)}
	r.values = map[string]string{"mark": "spoof" + random(8), "ip": "2001:db8:" + address(), "host": o.URL.Host}
	if err := r.wire.reach(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	r.http2 = r.wire.offersHTTP2(ctx)
	if o.Echo != nil {
		r.echo = startEcho(o.Echo, r.nonce, o.Timeout)
		defer r.echo.stop()
	}
	report := &Report{}
	begun, err := r.judge(ctx, r.controls(), report.add)
	if err != nil {
		return report, err
	}
	if _, err := r.judge(ctx, r.cases(begun), report.add); err != nil {
		return report, err
	}
	if _, err := r.judge(ctx, r.blind(begun), report.addLeak); err != nil {
		return report, err
	}
	// A front that stopped passing anything on meanwhile would have made every case look well.
	if begun.public {
		last := r.publicControl()
		last.name = "still-there"
		if _, err := r.judge(ctx, []probe{last}, report.add); err != nil {
			return report, err
		}
	}
	report.Unseen = r.unseen(begun)
	return report, nil
}

// run is one run.
type run struct {
	Options
	wire   wire
	echo   *echo
	nonce  string
	values map[string]string // what stands in texts of cases as {name}
	sent   int               // cases so far: each has a number
	http2  bool              // the front speaks it
	front  string            // which front answers, as far as it says so
	login  string            // what Sallyport answers who signs in
}

// probe is one request, and what must become of it.
type probe struct {
	name    string
	shown   string // header or path, as the report shows it
	request request
	expect  expectation
}

// outcome is what became of a request.
type outcome struct {
	answer  answer
	err     error // there was no answer
	arrived []arrival
}

// begun says what the first requests, which must pass, have shown.
type begun struct {
	public   bool // the echo is reached without a session
	signedIn *arrival
}

// judge sends probes, and adds what became of them.
func (r *run) judge(ctx context.Context, probes []probe, add func(*run, probe, verdict)) (begun, error) {
	outcomes := make([]outcome, len(probes))
	ids := make([]string, len(probes))
	for i := range probes {
		r.sent++
		ids[i] = fmt.Sprintf("%s-%d-", r.nonce, r.sent)
	}
	if err := r.send(ctx, probes, ids, outcomes); err != nil {
		return begun{}, err
	}
	seen := begun{}
	for i, p := range probes {
		r.noteFront(outcomes[i].answer)
		if r.echo != nil {
			outcomes[i].arrived = r.echo.arrivals(ids[i])
		}
		v := p.expect(r, &outcomes[i])
		if leaked := ownHeaders(outcomes[i].answer); leaked != "" && v.result != Leak {
			v = verdict{Leak, "the answer has " + leaked, fixQuestion}
		}
		add(r, p, v)
		if arrived := outcomes[i].arrived; v.result == OK && len(arrived) > 0 {
			switch p.name {
			case controlPublic:
				seen.public = true
			case controlSignedIn:
				seen.signedIn = &arrived[0]
			}
		}
	}
	return seen, nil
}

// send sends the probes, some of them at once.
func (r *run) send(ctx context.Context, probes []probe, ids []string, outcomes []outcome) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next, silent atomic.Int64
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(probes) || ctx.Err() != nil {
					return
				}
				o := &outcomes[i]
				o.answer, o.err = r.wire.exchange(ctx, r.filled(probes[i].request, ids[i]))
				var slow net.Error
				switch {
				case o.err == nil || !errors.As(o.err, &slow) || !slow.Timeout():
					silent.Store(0)
				case silent.Add(1) >= silences:
					cancel(errSilent)
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

// filled is a request with values in the place of their names.
func (r *run) filled(q request, id string) request {
	fill := func(s string) string {
		s = strings.ReplaceAll(s, "{id}", id)
		for name, value := range r.values {
			s = strings.ReplaceAll(s, "{"+name+"}", value)
		}
		return s
	}
	q.target = fill(q.target)
	lines := make([]string, 0, len(q.lines)+1)
	for _, line := range q.lines {
		lines = append(lines, fill(line))
	}
	q.lines = lines
	if q.fields != nil {
		fields := make([]field, 0, len(q.fields))
		for _, f := range q.fields {
			fields = append(fields, field{fill(f.name), fill(f.value)})
		}
		q.fields = fields
	}
	return q
}

// marked reports whether a text has what a case wrote into a header.
func (r *run) marked(text string) bool {
	text = strings.ToLower(text)
	return strings.Contains(text, r.values["mark"]) || strings.Contains(text, r.values["ip"])
}

// noteFront keeps which front answers, where it says so.
func (r *run) noteFront(a answer) {
	for _, front := range fronts {
		if strings.Contains(strings.ToLower(a.header.Get("Server")), strings.ToLower(front)) {
			r.front = front
		}
	}
}

// ownHeaders are what only the front may be told, if an answer to a client has them.
func ownHeaders(a answer) string {
	for _, name := range []string{"X-Sallyport-Names", "X-Sallyport-Assertion"} {
		if a.header.Get(name) != "" {
			return name
		}
	}
	return ""
}

func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// address is the end of an address for documentation (RFC 3849), in the one spelling that
// every program gives it.
func address() string {
	b := make([]byte, 12)
	_, _ = rand.Read(b) // never fails
	var groups []string
	for i := 0; i < len(b); i += 2 {
		groups = append(groups, fmt.Sprintf("%x", 0x1000|uint16(b[i])<<8|uint16(b[i+1])))
	}
	return strings.Join(groups, ":")
}
