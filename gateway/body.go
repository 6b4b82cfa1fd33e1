package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
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
	errBodyOther   = errors.New("the third party needs no body of this type")
	errBodyBroken  = errors.New("the body is not of its type")
	errBodyGone    = errors.New("the body broke off")
)

// jsonTypes are what is read as JSON, beside "+json": Rails knows it by the last ones too.
var jsonTypes = []string{"application/json", "text/json", "application/x-json", "text/x-json",
	"application/jsonrequest"}

// judgeBody looks at the bodies in which a third party could take a credential, or another
// method: forms (RFC 6750 §2.2), JSON and multipart forms. They are read as a whole, and
// put back. Others are passed on as they come, because servers do not read parameters in
// them; where needed is not nil, those that it does not name are refused.
func judgeBody(w http.ResponseWriter, r *http.Request, tokens, needed []string) error {
	if r.ContentLength == 0 {
		return nil
	}
	text := r.Header.Get("Content-Type")
	kind, params, err := mime.ParseMediaType(text)
	// "boundary*" (RFC 2231) goes before "boundary" for some readers, and is nothing to others.
	if err != nil || len(r.Header["Content-Type"]) != 1 || strings.ContainsAny(text, `*\`) {
		return errBodyType
	}
	if needed != nil && !slices.Contains(needed, kind) {
		return errBodyOther
	}
	var judge func([]byte) error
	switch {
	case kind == "application/x-www-form-urlencoded":
		judge = func(b []byte) error { return judgeForm(string(b), tokens) }
	case slices.Contains(jsonTypes, kind) || strings.HasSuffix(kind, "+json"):
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
	if !json.Valid(body) || !utf8.Valid(body) { // RFC 8259 §8.1
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

// judgeMultipart judges the names of a multipart form (RFC 7578). Readers of these are more
// different than those of anything else, so one that they could read in two ways is refused.
func judgeMultipart(body []byte, boundary string, tokens []string) error {
	if boundary == "" {
		return errBodyBroken
	}
	in, parts := multipart.NewReader(bytes.NewReader(body), boundary), 0
	for ; ; parts++ {
		part, err := in.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return errBodyBroken
		}
		name, ok := partName(part.Header)
		if !ok {
			return errBodyBroken
		}
		for _, read := range [...]string{name, unescapeLoosely(name)} { // browsers write a quote as %22
			if err := judgeName(read, tokens); err != nil {
				return err
			}
		}
		if _, err := io.Copy(io.Discard, part); err != nil {
			return errBodyBroken
		}
	}
	// PHP takes a line feed alone for the end of a line, and so sees borders that are none here.
	border := []byte("--" + boundary)
	if !bytes.HasPrefix(body, border) || bytes.Count(body, border) != parts+1 {
		return errBodyBroken
	}
	return nil
}

// partName is the name of a part, where every reader finds the same one: whether it takes a
// backslash for a sign like others, splits at a semicolon between quotes, knows "name*" (RFC
// 5987) and encoded words (RFC 2047), or not.
func partName(h textproto.MIMEHeader) (name string, ok bool) {
	for header := range h {
		if strings.ContainsAny(header, " \t") {
			return "", false
		}
	}
	if len(h["Content-Disposition"]) != 1 {
		return "", false
	}
	kind, rest, more := strings.Cut(h["Content-Disposition"][0], ";")
	if !strings.EqualFold(strings.TrimSpace(kind), "form-data") {
		return "", false
	}
	values := map[string]string{}
	for more {
		var one string
		one, rest, more = strings.Cut(rest, ";")
		key, value, _ := strings.Cut(one, "=")
		key, value = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)
		if inner, quoted := strings.CutPrefix(value, `"`); quoted {
			value, ok = strings.CutSuffix(inner, `"`)
		} else {
			ok = value != "" && !strings.ContainsAny(value, " \t")
		}
		_, twice := values[key]
		if !ok || twice || strings.ContainsAny(value, `"\`) || !slices.Contains(partParameters, key) {
			return "", false
		}
		values[key] = value
	}
	name = values["name"]
	return name, name != "" && !strings.Contains(name, "=?")
}

// partParameters are those of a part (RFC 7578 §4.2), with one that some programs send.
var partParameters = []string{"name", "filename", "filename*"}
