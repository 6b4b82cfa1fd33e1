package identity

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Proof is what may be asked of how people proved to their provider who they are,
// beside that they did. The zero Proof asks for nothing.
type Proof struct {
	MaxAge time.Duration // how long ago at most; 0: whenever
	ACR    []string      // by which means, in the provider's words, any of these; nil: by any
}

// ClockLeeway is how far the clock of a provider may be from ours.
const ClockLeeway = time.Minute

// Asks reports whether p asks for anything.
func (p Proof) Asks() bool { return p.MaxAge > 0 || len(p.ACR) > 0 }

// Shortfall is how somebody's proof falls short of what is asked.
type Shortfall int

const (
	NoShortfall Shortfall = iota
	AgeUnknown            // the provider does not say when
	TooOld                // it was too long ago
	InFuture              // it will be, by our clock
	OtherMeans            // it was by none of the means, or the provider does not say by which
)

// UnprovenError says how a proof falls short. Its text may be logged: what a provider
// said is quoted and cut.
type UnprovenError struct {
	Asked     Proof
	Shortfall Shortfall
	Age       time.Duration // where the provider says when
	ACR       string        // by which means it was; "": the provider does not say
}

func (e *UnprovenError) Error() string {
	switch e.Shortfall {
	case AgeUnknown:
		return fmt.Sprintf("auth_time is missing, asked for was at most %s ago", e.Asked.MaxAge)
	case TooOld, InFuture:
		return fmt.Sprintf("auth_time is %s ago, asked for was at most %s", e.Age.Round(time.Second), e.Asked.MaxAge)
	}
	acr := "missing or another one" // sessions keep no other values than routes ask for
	if e.ACR != "" {
		acr = strconv.QuoteToASCII(CutText(e.ACR, 200))
	}
	return fmt.Sprintf("acr is %s, asked for was any of %q", acr, e.Asked.ACR)
}

// CutText is the beginning of s, of most bytes at most, with a sign that something is
// missing.
func CutText(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// Check returns an *UnprovenError if somebody's proof, given at a time and by the means
// acr, is not what p asks for; now is by our clock. A provider that does not say when or
// how has proved nothing.
func (p Proof) Check(at time.Time, acr string, now time.Time) error {
	var age time.Duration
	if !at.IsZero() {
		age = now.Sub(at)
	}
	var shortfall Shortfall
	switch {
	case p.MaxAge > 0 && at.IsZero():
		shortfall = AgeUnknown
	case p.MaxAge > 0 && age > p.MaxAge+ClockLeeway:
		shortfall = TooOld
	case p.MaxAge > 0 && age < -ClockLeeway:
		shortfall = InFuture
	case len(p.ACR) > 0 && (acr == "" || !slices.Contains(p.ACR, acr)):
		shortfall = OtherMeans
	default:
		return nil
	}
	return &UnprovenError{Asked: p, ACR: acr, Age: age, Shortfall: shortfall}
}
