package demo

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strings"
)

//go:embed page/*
var pageFiles embed.FS

// templates renders the pages of the provider and of the app in one style.
type templates struct {
	pages    *template.Template
	title    string // the heading of the provider's pages
	css      template.CSS
	picture  []byte
	styleSrc string // the CSP source of the one style element
}

func newTemplates(title string) (*templates, error) {
	css, err := pageFiles.ReadFile("page/style.css")
	if err != nil {
		return nil, fmt.Errorf("read the style: %w", err)
	}
	sum := sha256.Sum256(css)
	t := &templates{title: title, css: template.CSS(css),
		styleSrc: "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"}
	if t.picture, err = pageFiles.ReadFile("page/mark.svg"); err != nil {
		return nil, fmt.Errorf("read the mark: %w", err)
	}
	funcs := template.FuncMap{"style": func() template.CSS { return t.css }, "initials": initials,
		"mark": func() string { return MarkPath }, "over": func() string { return t.title }}
	if t.pages, err = template.New("").Funcs(funcs).ParseFS(pageFiles, "page/*.html"); err != nil {
		return nil, fmt.Errorf("read the pages: %w", err)
	}
	return t, nil
}

// initials returns the initials of a name, which stand in place of a picture.
func initials(name string) string {
	var out []rune
	for _, word := range strings.Fields(name) {
		out = append(out, []rune(word)[0])
	}
	if len(out) > 2 {
		out = []rune{out[0], out[len(out)-1]}
	}
	return strings.ToUpper(string(out))
}

// mark serves the icon of the browser's tab.
func (t *templates) mark() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "image/svg+xml")
		h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
		h.Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(t.picture) // the browser has gone
	})
}

type chooserPage struct {
	Client  string   // who asks
	Origins []string // where the answer goes, and where that may lead
	People  []Person
	Hinted  string // key of the person the client expects
}

// chooser writes the page that asks who signs in.
func (t *templates) chooser(w http.ResponseWriter, p chooserPage) error {
	return t.write(w, http.StatusOK, "chooser.html", p, formAction(p.Origins))
}

// formAction is the directive of a page with a form that leads back to a client. Chromium
// applies it to the redirects that follow a POST, all of them, so it has the client's
// origins beside our own.
func formAction(origins []string) string {
	targets := "'self'"
	for _, target := range origins {
		if scheme, host, _ := strings.Cut(target, "://"); strings.HasPrefix(host, "[") {
			target = scheme + ":" // CSP3 §2.3.1 has no way to write an IPv6 address
		}
		targets += " " + target
	}
	return "form-action " + targets
}

func (t *templates) message(w http.ResponseWriter, status int, title, text string) error {
	return t.write(w, status, "message.html", struct{ Title, Text string }{title, text}, "form-action 'none'")
}

// page turns the error of a browser endpoint of a party into a page.
func (t *templates) page(party string, f func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := f(w, r)
		if err == nil {
			return
		}
		var e *pageError
		if !errors.As(err, &e) {
			e = &pageError{http.StatusInternalServerError, party + " failed."}
		}
		// An error means that the browser has gone.
		_ = t.message(w, e.status, "That did not work", e.text+" Go back to the app and start again.")
	})
}

// write renders the whole page before it sends the first byte. formAction is the form-action
// directive; "" for none.
func (t *templates) write(w http.ResponseWriter, status int, page string, data any, formAction string) error {
	var body bytes.Buffer
	if err := t.pages.ExecuteTemplate(&body, page, data); err != nil {
		return fmt.Errorf("draw %s: %w", page, err)
	}
	csp := "default-src 'none'; img-src 'self'; style-src " + t.styleSrc + "; base-uri 'none'; frame-ancestors 'none'"
	if formAction != "" {
		csp += "; " + formAction
	}
	h := w.Header()
	h.Set("Content-Security-Policy", csp)
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	// Not no-referrer: with it a browser sends "Origin: null" with our own forms.
	h.Set("Referrer-Policy", "same-origin")
	w.WriteHeader(status)
	_, err := w.Write(body.Bytes())
	return err
}

// consent writes the page of the pretend Google.
func (t *templates) consent(w http.ResponseWriter, p consentPage, origins []string) error {
	return t.write(w, http.StatusOK, "consent.html", p, formAction(origins))
}
