package config

import (
	"slices"
	"strings"
	"testing"
)

// What stands where a secret belongs, or where nobody can know that it is none, is in no excerpt
// and no message; all else is shown, or nobody sees what is wrong. Asked of every key of the file,
// with a text, a list and a mapping in its place.
func TestP18_ExcerptsOfEveryKeyShowWhatIsNoSecretAndHideTheRest(t *testing.T) {
	// Places of references to secrets, and to files of which one that is pasted may be a key.
	references := []string{
		"listen.https.cert", "listen.https.key", "listen.external_auth.cert", "listen.external_auth.key",
		"listen.grants.cert", "listen.grants.key", "session.keys", "store.url", "store.ca",
		"providers[].discovery_token", "providers[].ca", "providers[].client_secret", "providers[].client_assertion",
		"providers[].client_key", "providers[].public_keys", "routes[].upstream.ca", "routes[].headers.basic.password",
		"grants.encryption_keys", "grants.connectors[].client_secret", "grants.connectors[].signing_secrets",
		"grants.apps[].token", "pages.logo",
	}
	// What has such places below it, and can itself be no text: somebody may have left out a level.
	above := []string{"listen", "listen.https", "session", "routes[].headers", "routes[].headers.basic", "grants"}
	lists := []string{"providers", "routes", "grants.connectors", "grants.apps"}
	// Addresses, or mappings with such places below them: a text there is no secret.
	addresses := []string{"listen.external_auth", "listen.grants"}
	database := []string{"store"} // its address can have a password in it

	for value, hidden := range map[string][]string{
		mistake:                slices.Concat(references, above, lists, database),
		"[" + mistake + "]":    slices.Concat(references, above, lists, database, addresses),
		"{x: " + mistake + "}": slices.Concat(references, lists),
	} {
		for _, k := range Keys() {
			_, faults := Parse("config.yaml", []byte(alone(k.Path, value)))
			said := faults.Error()
			hide := slices.Contains(hidden, k.Path)
			if strings.Contains(said, mistake) == hide || strings.Contains(said, "<secret>") != hide {
				t.Errorf("%s: %s, which is to be hidden: %v\n%s", k.Path, value, hide, said)
			}
			hidden = slices.DeleteFunc(hidden, func(path string) bool { return path == k.Path })
		}
		if len(hidden) > 0 {
			t.Errorf("there is no %v", hidden)
		}
	}
}

const mistake = "c4nary x!"

// alone is a file with nothing but a value at a path, and beside it a key that nobody knows, so
// that there is an excerpt of the line.
func alone(path, value string) string {
	var b strings.Builder
	indent, first := "", ""
	parts := strings.Split(path, ".")
	for i, part := range parts {
		name, list := strings.CutSuffix(part, "[]")
		b.WriteString(indent + first + name + ":")
		indent += strings.Repeat(" ", len(first))
		if i == len(parts)-1 {
			break
		}
		b.WriteString("\n")
		if indent, first = indent+"  ", ""; list {
			first = "- "
		}
	}
	return b.String() + " " + value + "\n" + indent + "unknown_here: 1\n"
}
