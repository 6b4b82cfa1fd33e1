package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"time"
)

const (
	// maxJudged is the longest body that is looked at, in bytes, and judgedWithin the time
	// in which it has to be here.
	maxJudged    = 1 << 20
	judgedWithin = 30 * time.Second
	// maxBody is the longest body that is passed on without a look, in bytes.
	maxBody = 64 << 20
	// maxDepth is how deep a body of JSON may be.
	maxDepth = 1000
)

var (
	errBodyLarge   = errors.New("a body of this type is looked at, and may have 1 MiB at most")
	errBodyEncoded = errors.New("a body of this type is looked at, and may not be encoded")
	errBodyType    = errors.New("a body needs one Content-Type, with UTF-8 as its charset, and may not be a batch")
	errBodyBroken  = errors.New("the body is not of its type")
	errBodyGone    = errors.New("the body broke off")
)

// judgeBody looks at the bodies in which a third party could take a credential, or another
// method: forms (RFC 6750 §2.2), JSON and multipart forms. They are read as a whole, and
// put back. Others are passed on as they come: no server reads parameters in them.
func judgeBody(w http.ResponseWriter, r *http.Request, tokens []string) error {
	if r.ContentLength == 0 {
		return nil
	}
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || len(r.Header["Content-Type"]) != 1 {
		return errBodyType
	}
	var judge func([]byte) error
	switch {
	case kind == "application/x-www-form-urlencoded":
		judge = func(b []byte) error { return judgeForm(string(b), tokens) }
	case kind == "application/json" || strings.HasSuffix(kind, "+json") || kind == "text/json":
		judge = func(b []byte) error { return judgeJSON(b, tokens) }
	case kind == "multipart/form-data":
		judge = func(b []byte) error { return judgeMultipart(b, params["boundary"], tokens) }
	case strings.HasPrefix(kind, "multipart/"), kind == "application/http":
		return errBodyType // several requests in one
	default:
		return nil
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return errBodyType
	}
	for _, coding := range r.Header["Content-Encoding"] {
		if !strings.EqualFold(strings.TrimSpace(coding), "identity") {
			return errBodyEncoded
		}
	}
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	if err := judge(body); err != nil {
		return err
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	r.TransferEncoding, r.Trailer = nil, nil
	return nil
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > maxJudged {
		return nil, errBodyLarge
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(judgedWithin)) // a test's recorder has none
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxJudged))
	_ = control.SetReadDeadline(time.Time{})
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return nil, errBodyLarge
	}
	if err != nil {
		return nil, errBodyGone
	}
	return body, nil
}

// judgeJSON judges the names of the outermost object, or of those in an outermost list. A
// name further inside is the app's own data: no server takes its credential from there.
func judgeJSON(body []byte, tokens []string) error {
	if !json.Valid(body) {
		return errBodyBroken
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var open []json.Delim // the objects and lists that are not closed yet
	key := false          // the next token is a name, where the innermost is an object
	for {
		tok, err := d.Token()
		if err != nil {
			return nil // the end of a body that is valid
		}
		switch v := tok.(type) {
		case json.Delim:
			if v == '{' || v == '[' {
				if open = append(open, v); len(open) > maxDepth {
					return errBodyBroken
				}
				key = v == '{'
				continue
			}
			open = open[:len(open)-1]
		case string:
			if key && (len(open) == 1 || len(open) == 2 && open[0] == '[') {
				if err := judgeName(v, tokens); err != nil {
					return err
				}
			}
			if key {
				key = false
				continue
			}
		}
		key = len(open) > 0 && open[len(open)-1] == '{'
	}
}

func judgeMultipart(body []byte, boundary string, tokens []string) error {
	if boundary == "" {
		return errBodyBroken
	}
	for in := multipart.NewReader(bytes.NewReader(body), boundary); ; {
		part, err := in.NextRawPart()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errBodyBroken
		}
		// Two of them, or one that cannot be read, are read by each server in its own way.
		if len(part.Header["Content-Disposition"]) != 1 || part.FormName() == "" {
			return errBodyBroken
		}
		if err := judgeName(part.FormName(), tokens); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, part); err != nil {
			return errBodyBroken
		}
	}
}
