package login

import (
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// Where nothing is configured, people are sent back to providers that are known to answer
// without asking them anything, and to no others.
func TestAfterAnHourProvidersAreAskedAgainThatAnswerSilently(t *testing.T) {
	t.Parallel()
	prompts := func(values ...string) testenv.Fault {
		return testenv.Fault{Endpoint: testenv.Discovery, JSON: testenv.With("prompt_values_supported", values)}
	}
	noPrompts := testenv.Fault{Endpoint: testenv.Discovery, JSON: testenv.Without("prompt_values_supported")}
	for name, tt := range map[string]struct {
		kind  string
		fault testenv.Fault
		edit  func(*world, *Options)
		want  time.Duration
	}{
		"google":              {demo.Google, noPrompts, func(_ *world, o *Options) { o.Type = TypeGoogle }, time.Hour},
		"microsoft":           {demo.Microsoft, noPrompts, microsoftCommon, time.Hour},
		"oidc, announced":     {demo.Standard, prompts("login", "none"), nil, time.Hour},
		"oidc, not announced": {demo.Standard, noPrompts, nil, 0},
		"oidc, others only":   {demo.Standard, prompts("login", "consent"), nil, 0},
		"slack":               {demo.Slack, noPrompts, func(_ *world, o *Options) { o.Type = TypeSlack }, 0},
		"configured, though not announced": {demo.Standard, noPrompts,
			func(_ *world, o *Options) { o.ReauthAfter = 5 * time.Minute }, 5 * time.Minute},
		"never, though announced": {demo.Standard, prompts("none"),
			func(_ *world, o *Options) { o.ReauthAfter = NoReauth }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := worldOfKind(t, tt.kind, func(o *Options) { o.ReauthAfter = NoReauth })
			w.op.Set(tt.fault)
			w.use(func(o *Options) {
				if tt.edit != nil {
					tt.edit(w, o)
				}
			})
			if _, err := w.p.metadata(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := w.p.ReauthAfter(); got != tt.want {
				t.Errorf("asked again after %v, want %v", got, tt.want)
			}
		})
	}
}

func microsoftCommon(w *world, o *Options) {
	o.Type, o.Tenant, o.Endpoints.GraphURL = TypeMicrosoft, TenantCommon, w.op.URL
}

// A sign of life is good for a minute, and asked for every ten seconds at most, however
// many pages wait for one.
func TestAProviderIsAskedRarelyWhetherItAnswers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want()
	if !w.p.Answering(t.Context()) {
		t.Error("it has just answered")
	}
	w.pass(61 * time.Second)
	asks := w.op.Hits(testenv.Discovery)
	for range 20 {
		w.p.Answering(t.Context())
	}
	testenv.Eventually(t, "an answer", func() bool { return w.p.Answering(t.Context()) })
	if got := w.op.Hits(testenv.Discovery) - asks; got != 1 {
		t.Errorf("asked %d times", got)
	}
	w.op.Set(testenv.Fault{Endpoint: testenv.Discovery, Status: 503})
	w.pass(61 * time.Second)
	asks = w.op.Hits(testenv.Discovery)
	for range 3 {
		if w.p.Answering(t.Context()) {
			t.Error("a provider that fails counts as one that answers")
		}
		asks++
		testenv.Eventually(t, "it to be asked", func() bool { return w.op.Hits(testenv.Discovery) == asks })
		for range 20 {
			w.p.Answering(t.Context())
		}
		w.pass(11 * time.Second)
	}
	if got := w.op.Hits(testenv.Discovery); got != asks {
		t.Errorf("asked %d times too often", got-asks)
	}
}
