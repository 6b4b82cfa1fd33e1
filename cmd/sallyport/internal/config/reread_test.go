package config

import "testing"

// TestReread: a file tells what it holds now, under the rules of the first time;
// a variable and the configuration itself stay as they were.
func TestReread(t *testing.T) {
	c, faults := Parse("config.yaml", []byte(elsewhere))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	env, files := environment(), disk()
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	if faults := c.Resolve(lookup, files); len(faults) > 0 {
		t.Fatal(faults)
	}
	cert, key, variable := c.Listen.HTTPS.Cert, c.Listen.HTTPS.Key, c.Session.Keys[1]
	files["tls/tls.crt"] = aFile(0o644, "NEW\nCHAIN\n")
	files["tls/tls.key"] = aFile(0o644, "hunter2-new\n")
	env["SESSION_KEY"] = "hunter2-other"
	if got, err := cert.Reread(files); got != "NEW\nCHAIN" || err != nil {
		t.Errorf("the certificate: %q, %v", got, err)
	}
	const refused = "everybody on this machine can read file /tls/tls.key (mode 0644): run chmod o-r, or give the " +
		"Kubernetes volume defaultMode 0440"
	if got, err := key.Reread(files); got != "" || err == nil || err.Error() != refused {
		t.Errorf("a key that everybody can read: %q, %v", got, err)
	}
	if got, err := variable.Reread(files); got != "hunter2-env" || err != nil {
		t.Errorf("a variable: %q, %v", got, err)
	}
	if got, err := (Ref{}).Reread(files); got != "" || err != nil {
		t.Errorf("nothing: %q, %v", got, err)
	}
	if cert.Value() != "CERT\nCHAIN" || key.Value() != "hunter2-tls\n" {
		t.Errorf("rereading changed the configuration: %q", cert.Value())
	}
}
