package grant

import "testing"

// An origin has one spelling, whatever was written.
func TestAnOriginHasOneSpelling(t *testing.T) {
	for address, want := range map[string]string{
		"https://slack.com": "https://slack.com", "https://SLACK.com/api/": "https://slack.com",
		"https://slack.com:443": "https://slack.com", "https://slack.com:8443/": "https://slack.com:8443",
		"https://slack.com/?x": "https://slack.com", "https://a_b.example": "https://a_b.example",
		"http://10.0.0.1:80/x": "http://10.0.0.1", "https://[2001:db8::1]:443": "https://[2001:db8::1]",
		"https://u@slack.com": "https://slack.com", "https://slack.com#x": "https://slack.com",
	} {
		if got := originOf(address); got != want {
			t.Errorf("%s is at %s, want %s", address, got, want)
		}
	}
}
