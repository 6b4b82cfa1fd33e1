package identity

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// What a provider does not say, or says of the future, has proved nothing; a minute is
// forgiven to clocks, in both directions.
func TestP01_AProofIsWhatAProviderSaysAndNoMore(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	quarter, means := Proof{MaxAge: 15 * time.Minute}, Proof{ACR: []string{"mfa", "phr"}}
	both := Proof{MaxAge: quarter.MaxAge, ACR: means.ACR}
	for name, tt := range map[string]struct {
		asked Proof
		at    time.Time
		acr   string
		want  Shortfall
	}{
		"nothing asked, nothing said": {Proof{}, time.Time{}, "", NoShortfall},
		"just now":                    {quarter, now, "", NoShortfall},
		"at the edge":                 {quarter, now.Add(-16 * time.Minute), "", NoShortfall},
		"a moment too old":            {quarter, now.Add(-16*time.Minute - time.Nanosecond), "", TooOld},
		"the year 1":                  {quarter, time.Unix(-62135596799, 0), "", TooOld},
		"1970":                        {quarter, time.Unix(0, 0), "", TooOld},
		"not said":                    {quarter, time.Time{}, "mfa", AgeUnknown},
		"a minute ahead":              {quarter, now.Add(time.Minute), "", NoShortfall},
		"more than that":              {quarter, now.Add(time.Minute + time.Nanosecond), "", InFuture},
		"the year 9999":               {quarter, time.Unix(253402300799, 0), "", InFuture},
		"one of the means":            {means, time.Time{}, "phr", NoShortfall},
		"another one":                 {means, now, "pwd", OtherMeans},
		"in capitals":                 {means, now, "MFA", OtherMeans},
		"both at once":                {means, now, "mfa phr", OtherMeans},
		"no means":                    {means, now, "", OtherMeans},
		"an empty one is asked for":   {Proof{ACR: []string{""}}, now, "", OtherMeans},
		"both hold":                   {both, now, "mfa", NoShortfall},
		"one holds":                   {both, now, "pwd", OtherMeans},
		"the other holds":             {both, now.Add(-time.Hour), "mfa", TooOld},
	} {
		err := tt.asked.Check(tt.at, tt.acr, now)
		var unproven *UnprovenError
		got := NoShortfall
		if errors.As(err, &unproven) {
			got = unproven.Shortfall
		}
		if got != tt.want || (err == nil) != (tt.want == NoShortfall) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A front door that forgot the clock lets nobody in.
	if quarter.Check(now, "", time.Time{}) == nil {
		t.Error("without a clock it is recent enough")
	}
	err := means.Check(now, strings.Repeat("ä\n", 500), now)
	if text := err.Error(); len(text) > 1300 || strings.Contains(text, "\n") {
		t.Errorf("%d bytes: %s", len(text), text)
	}
}

func TestAProofThatWillDoTakesNoMemory(t *testing.T) {
	now := time.Now()
	p := Proof{MaxAge: time.Hour, ACR: []string{"phr"}}
	if n := testing.AllocsPerRun(100, func() {
		if err := p.Check(now.Add(-time.Minute), "phr", now); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
