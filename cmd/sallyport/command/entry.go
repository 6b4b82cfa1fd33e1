package command

import (
	"fmt"
	"io"
	"log"
	"os"
	"regexp"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// Main runs the command that the process was started with, and returns its exit code. It is
// all of a program:
//
//	func main() { os.Exit(command.Main()) }
func Main(options ...Option) int {
	// net/http's transport writes unexpected bytes of an app to the standard logger. Our log
	// is JSON and quotes no app (P18).
	log.SetOutput(io.Discard)
	c := &console{stdout: os.Stdout, stderr: os.Stderr, env: os.LookupEnv, types: config.Types{}}
	for _, add := range options {
		if err := add(c.types); err != nil {
			fmt.Fprintln(c.stderr, "sallyport: "+err.Error())
			return exitFailed
		}
	}
	return run(os.Args[1:], c)
}

// Option is what a program has beside what Sallyport has.
type Option func(config.Types) error

// Settings are what the configuration says of a connector of a type that WithConnector added.
// Where Sallyport only judges a configuration, values that are references are not known, and
// have some text in their place.
type Settings struct {
	ID, Name               string // Name is "" where there is none
	ClientID, ClientSecret string
	BaseURL                string // https, or on this machine
	Owner                  grant.OwnerKind
	// Options are those of the key `options`, which nobody else has judged.
	Options map[string]string
	// OAuth sends requests to the third party, as those of Sallyport are sent: counted, without
	// redirects, and with errors that quote nothing.
	OAuth *oauth.Client
}

// WithConnector adds a type of connectors, which configurations may name. make does no I/O; it
// returns a grant.OAuth or a grant.Keyed whose About has the ID of the settings. It is called
// for each such connector when a configuration is judged, and when one is taken into use. An
// error that is a *connector.Fault is shown at the key that it names, "options.region".
// granttest.TestConnector holds a connector to its contract.
func WithConnector(name string, make func(Settings) (grant.Connector, error)) Option {
	return func(types config.Types) error {
		_, ours := assemble.ConnectorTypes()[name]
		switch _, twice := types[name]; {
		case !regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`).MatchString(name) || make == nil:
			return fmt.Errorf("the type %q of connectors needs a constructor, and a name of small letters, digits "+
				"and _", name)
		case ours || twice:
			return fmt.Errorf("there is a type %q of connectors already", name)
		}
		types[name] = func(k config.Connector, client *oauth.Client) (grant.Connector, error) {
			return make(Settings{ID: k.ID, Name: k.Name, ClientID: k.ClientID, ClientSecret: assemble.SecretOf(k),
				BaseURL: k.BaseURL, Owner: grant.OwnerKind(k.Owner), Options: k.Options, OAuth: client})
		}
		return nil
	}
}
