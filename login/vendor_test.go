package login

import (
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// fact is one row of a vendor's table: something true of the vendor, or one
// lie, and what becomes of it. name cites where it is from.
type fact struct {
	name   string
	who    string         // "mira" if empty
	edit   func(*Options) // of our side
	faults []testenv.Fault
	want   identity.Identity      // exactly, but for auth_time and sid; or
	refuse identity.SignInFailure // this failure
	says   string                 // words of it, where another check could say no as well
}

func runFacts(t *testing.T, w *world, base func(*Options), facts []fact) {
	for _, f := range facts {
		t.Run(f.name, func(t *testing.T) {
			w.t = t
			edits := []func(*Options){base}
			if f.edit != nil {
				edits = append(edits, f.edit)
			}
			w.use(edits...)
			w.op.Set(f.faults...)
			id, err := w.signIn(or(f.who, "mira"), identity.AuthParams{})
			if f.refuse != "" {
				if err := w.failed(err, f.refuse); !strings.Contains(err.Error(), f.says) {
					t.Errorf("refused for another reason: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			id.AuthTime, id.ProviderSID = time.Time{}, ""
			if !reflect.DeepEqual(id, f.want) {
				t.Errorf("got  %+v\nwant %+v", id, f.want)
			}
		})
	}
	w.t = t
}

// token, info and document bend what the provider sends.
func tokenClaims(b bend) []testenv.Fault {
	return []testenv.Fault{{Endpoint: testenv.Token, Claims: b}}
}

func changed(id identity.Identity, f func(*identity.Identity)) identity.Identity {
	f(&id)
	return id
}

// authQuery is what the browser would carry to the provider.
func (w *world) authQuery(ap identity.AuthParams) url.Values {
	w.t.Helper()
	to, err := w.p.AuthURL(w.t.Context(), handshake(), ap)
	if err != nil {
		w.t.Fatal(err)
	}
	u, err := url.Parse(to)
	if err != nil {
		w.t.Fatal(err)
	}
	return u.Query()
}
