package hostname

import (
	"regexp"
	"strings"
	"testing"
)

func TestDomainsAreWhatMailKnows(t *testing.T) {
	for name, want := range map[string]bool{
		"example.com": true, "a.b-c.example": true, "localhost": true, "1.2": true,
		"xn--bcher-kva.example": true, strings.Repeat("a", 63) + ".b": true,
		"": false, "a_b.example": false, "Example.com": false, "example.com.": false, ".example.com": false,
		"a..b": false, "-a.b": false, "a-.b": false,
		"*.example.com": false, "@example.com": false, "bücher.example": false, strings.Repeat("a", 64): false,
		"a b": false,
	} {
		if got := IsDomain(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
		if got := regexp.MustCompile(DomainPattern).MatchString(name); got != want {
			t.Errorf("%q: the pattern says %v, want %v", name, got, want)
		}
	}
	if IsDomain(strings.Repeat("a.", 127) + "a") {
		t.Error("255 characters")
	}
}

func TestLoopbackIsThisMachineAlone(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST": true, "idp.localhost": true, "a.b.localhost": true, "127.0.0.1": true,
		"127.8.9.1": true, "::1": true,
		"": false, "notlocalhost": false, "localhost.example.com": false, "127.0.0.1.example.com": false,
		"::ffff:127.0.0.1": false, "0.0.0.0": false,
		"128.0.0.1": false, "fe80::1%lo": false, "2130706433": false,
	} {
		if got := IsLoopback(host); got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
}
