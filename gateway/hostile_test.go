package gateway_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// Each of these is read in two ways: Go's reader sees a body without a credential or another
// method in it, and some third party's sees one.
func TestP12_ABodyThatIsReadInTwoWaysNeverArrives(t *testing.T) {
	peer := testenv.NewRawUpstream(t)
	r := newRig(t, peer.URL())
	r.connect("freebusy")
	const post, form = "/gateway/calendar/freeBusy", "application/x-www-form-urlencoded"
	const parts = "multipart/form-data; boundary=b"
	part := func(header, content string) string {
		return "--b\r\n" + header + "\r\n\r\n" + content + "\r\n--b--\r\n"
	}
	const hidden = "\r\nContent-Disposition: form-data; name=\"_method\"\r\n\r\nDELETE"
	var utf16JSON bytes.Buffer
	for _, c := range utf16.Encode([]rune("\ufeff{\"access_token\":1}")) {
		utf16JSON.Write([]byte{byte(c >> 8), byte(c)})
	}
	for name, c := range map[string]struct {
		kind, body string
		status     int
		header     []string
	}{
		// PHP makes an underscore of a bracket that is not closed.
		"form, open bracket": {form, "access[token=x", 400, nil},
		"form, two bytes":    {form, "access%C1%9Ftoken=x", 400, nil}, // an overlong underscore
		"two boundaries": {"multipart/form-data; boundary=c; boundary*=utf-8''b",
			"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n--c" + hidden + "\r\n--c--\r\n--b--\r\n", 415, nil},
		"extended name": {parts, part(`Content-Disposition: form-data; name="_method"; name*=utf-8''a`, "DELETE"), 400,
			nil},
		"name in pieces": {parts, part(`Content-Disposition: form-data; name*0="_met"; name*1="hod"`,
			"DELETE"), 400, nil},
		"blank before sign": {parts, part("Content-Disposition: form-data; name=a\r\n"+
			"Content-Disposition : form-data; name=_method", "DELETE"), 400, nil},
		"name in a name": {parts, part(`Content-Disposition: form-data; filename="\"; name=_method; x=\""; name=a`,
			"DELETE"), 400, nil},
		"lines of PHP": {parts, part(`Content-Disposition: form-data; name=a`, "x\n--b"+hidden), 400, nil},
		"bare return":  {parts, part(`Content-Disposition: form-data; name=a`, "x\r--b"+hidden), 400, nil},
		"before the first": {parts, "x--b" + hidden + "\r\n" +
			part("Content-Disposition: form-data; name=a", "1"), 400, nil},
		"after the last": {parts, part("Content-Disposition: form-data; name=a", "1") + "--b" + hidden, 400, nil},
		"no last one":    {parts, "--b\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n", 400, nil},
		"folded": {parts, part("Content-Disposition: form-data;\r\n name=a;\r\n name=\"_method\"",
			"DELETE"), 400, nil},
		"JSON, UTF-16":  {"application/json", utf16JSON.String(), 400, nil},
		"JSON, mark":    {"application/json", "\ufeff{\"access_token\":1}", 400, nil},
		"JSON, charset": {"application/json; charset=utf-16", utf16JSON.String(), 415, nil},
		"JSON of Rails": {"text/x-json", `{"access_token":1}`, 400, nil},
		"older JSON":    {"application/jsonrequest", `{"access_token":1}`, 400, nil},
		"encoded word": {parts, part(`Content-Disposition: form-data; name="=?utf-8?q?=5Fmethod?="`, "DELETE"), 400,
			nil},
		"escaped name": {parts, part(`Content-Disposition: form-data; name="%5Fmethod"`, "DELETE"), 400, nil},
		// What Connection names is not sent on; then the body has no type, which Rack takes for a form.
		"type taken away": {"application/octet-stream", "_method=DELETE", 400, []string{"Connection", "Content-Type"}},
		"type among others": {"text/plain", "_method=DELETE", 400,
			[]string{"Connection", "keep-alive, content-type"}},
	} {
		res, body := r.ask("POST", post, c.body, append([]string{"Content-Type", c.kind}, c.header...)...)
		if res.StatusCode != c.status {
			t.Errorf("%s: %d, want %d: %s", name, res.StatusCode, c.status, body)
		}
	}
	if n := len(peer.Requests()); n != 0 {
		t.Errorf("%d requests arrived: %q", n, peer.Requests())
	}
	for name, query := range map[string]string{"open bracket": "access[token=x", "overlong": "access%C1%9Ftoken=x"} {
		if res, body := r.ask("GET", busy+"?"+query, ""); res.StatusCode != 400 {
			t.Errorf("query, %s: %d %s", name, res.StatusCode, body)
		}
	}
}

// Forms as programs make them pass, byte for byte.
func TestP12_AFormThatIsReadInOneWayArrives(t *testing.T) {
	peer := testenv.NewRawUpstream(t)
	r := newRig(t, peer.URL())
	r.connect("freebusy")
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	testenv.Check(t, w.WriteField("title", "--"+w.Boundary()[:8]+"\r\n\n--"))
	f, err := w.CreateFormFile("attachment[0]", "Übersicht 1 (2).pdf")
	testenv.Check(t, err)
	_, err = f.Write([]byte{0, 1, 2, '\n', '\r', '-', '-'})
	testenv.Check(t, err)
	testenv.Check(t, w.Close())
	browser := "------WebKitFormBoundaryX\r\nContent-Disposition: form-data; name=\"a%22b\"; filename=\"\"\r\n" +
		"Content-Type: application/octet-stream\r\n\r\n\r\n------WebKitFormBoundaryX--\r\n"
	for name, c := range map[string][2]string{
		"Go":            {w.FormDataContentType(), b.String()},
		"a browser":     {"multipart/form-data; boundary=----WebKitFormBoundaryX", browser},
		"quoted":        {`multipart/form-data; boundary="----WebKitFormBoundaryX"`, browser},
		"no last break": {"multipart/form-data; boundary=----WebKitFormBoundaryX", strings.TrimSuffix(browser, "\r\n")},
		"undici": {"multipart/form-data; boundary=----formdata-undici-0123", strings.ReplaceAll(browser,
			"----WebKitFormBoundaryX", "----formdata-undici-0123")},
		"an extended file name": {"multipart/form-data; boundary=b", "--b\r\ncontent-disposition: form-data; " +
			"name=\"a\"; " +
			"filename=\"x.txt\"; filename*=UTF-8''%C3%BC.txt\r\nContent-Length: 1\r\n\r\nx\r\n--b--"},
		"a form": {"application/x-www-form-urlencoded", "a[]=1&a[b][c]=2&x=%C3%BC"},
	} {
		res, body := r.ask("POST", "/gateway/calendar/freeBusy", c[1], "Content-Type", c[0])
		if res.StatusCode != 200 || string(testenv.Body(peer.Last(t))) != c[1] {
			t.Errorf("%s: %d %s", name, res.StatusCode, body)
		}
	}
}

// A program that follows redirects by itself sends what proves the app and the person along,
// as long as it stays on one host. No third party may have it ask Sallyport for something.
func TestP12_ARedirectLeadsNoAppBackToTheGateway(t *testing.T) {
	peer := testenv.NewRawUpstream(t)
	r := newRig(t, peer.URL()+"/v3")
	r.connect("freebusy", "events")
	gate, _ := url.Parse(r.url)
	for location, want := range map[string]string{
		"/gateway/calendar/events/1":                  peer.URL() + "/gateway/calendar/events/1",
		"../busy?x=%2F#f":                             peer.URL() + "/v3/calendars/busy?x=%2F#f",
		"?page=2":                                     peer.URL() + "/v3/calendars/a%40b.test%2F%23x/busy?page=2",
		"//elsewhere.test/x":                          "", // http, as the third party of this test
		"https://elsewhere.test/x%2Fy":                "https://elsewhere.test/x%2Fy",
		peer.URL() + "/other":                         peer.URL() + "/other",
		r.url + "/gateway/calendar/events/1":          "",
		"HTTP://LOCALHOST:" + gate.Port() + "/v1":     "",
		"https://" + gate.Host + "/v1/token":          "",
		"http://[::ffff:127.0.0.1]:" + gate.Port():    "",
		"http://169.254.169.254/latest/meta-data":     "",
		"https:\\\\" + gate.Host + "/v1":              "",
		"https://a.test\\@" + gate.Host + "/v1":       "",
		"javascript:alert(1)":                         "",
		"https://user:pw@elsewhere.test/":             "https://user:pw@elsewhere.test/",
		"http:/gateway/calendar/events/1":             "",
		"https:gateway/calendar/events/1":             "",
		"\\gateway":                                   peer.URL() + "/v3/calendars/a%40b.test%2F%23x/%5Cgateway",
		"/%zz":                                        "",
		"https://elsewhere.test/?canary%2Faccess-1":   "",
		"https://elsewhere.test/?canary/access-1=yes": "",
	} {
		for _, name := range []string{"Location", "Content-Location"} {
			peer.Respond(func([]byte) []byte {
				return []byte("HTTP/1.1 307 Temporary Redirect\r\n" + name + ": " + location +
					"\r\nContent-Length: 0\r\n\r\n")
			})
			res, body := r.ask("GET", busy, "")
			if got := res.Header.Get(name); got != want || res.StatusCode != 307 {
				t.Errorf("%s %q: %q, want %q (%d %s)", name, location, got, want, res.StatusCode, body)
			}
		}
	}
	peer.Respond(func([]byte) []byte {
		return []byte("HTTP/1.1 302 Found\r\nLocation: https://a.test/\r\nLocation: /gateway/x\r\n" +
			"Content-Length: 0\r\n\r\n")
	})
	if res, _ := r.ask("GET", busy, ""); res.Header["Location"] != nil {
		t.Errorf("two places: %q", res.Header["Location"])
	}
}

// Whatever an answer is called, its bytes are searched for the credential: ranges of a text
// are "multipart/byteranges", and an echo may be called message/http or nothing at all.
func TestP08_AnEchoOfAnyTypeIsHidden(t *testing.T) {
	peer := testenv.NewRawUpstream(t)
	r := newRig(t, peer.URL())
	r.connect("freebusy")
	for _, kind := range []string{"multipart/byteranges; boundary=x", "message/http", "application/octet-stream",
		"image/png", "text/plain", "TEXT/HTML; charset=\"", ""} {
		peer.Respond(func([]byte) []byte {
			return []byte("HTTP/1.1 206 Partial Content\r\nContent-Type: " + kind + "\r\n" +
				"Transfer-Encoding: chunked\r\n\r\n8\r\ncanary/a\r\n1\r\nc\r\n6\r\ncess-1\r\n0\r\nX-Later: canary/access-1\r\n\r\n")
		})
		if _, body := r.ask("GET", busy, "", "Range", "bytes=0-1,3-4"); body != "***************" {
			t.Errorf("%q: %q", kind, body)
		}
	}
}

// raw sends bytes to the gateway as they are, and returns all that comes back within a while.
func (r *rig) raw(text string) string {
	r.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	testenv.Check(r, err)
	defer c.Close()
	testenv.Check(r, c.SetDeadline(time.Now().Add(time.Minute)))
	_, err = io.WriteString(c, text)
	testenv.Check(r, err)
	if half, ok := c.(*net.TCPConn); ok && !strings.Contains(text, "Connection: close") {
		testenv.Check(r, half.CloseWrite()) // so that the connection ends behind the answer
	}
	b, _ := io.ReadAll(c) // the connection may be reset behind an answer
	return string(b)
}

// What two programs could read in two ways, on the wire, reaches no third party: neither a
// target, nor a body in which another request hides.
func TestP12_NothingIsSmuggledPastTheGateway(t *testing.T) {
	peer := testenv.NewRawUpstream(t)
	r := newRig(t, peer.URL())
	r.connect("freebusy")
	proof := "Host: gate\r\nAuthorization: Bearer " + appToken + "\r\nX-Sallyport-Assertion: " + r.assertion("planner") +
		"\r\n"
	get := "GET " + busy + " HTTP/1.1\r\n" + proof + "\r\n"
	const form = "Content-Type: application/x-www-form-urlencoded\r\n"
	post := "POST /gateway/calendar/freeBusy HTTP/1.1\r\n" + proof + form
	length := func(s string) string { return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(s), s) }
	for name, raw := range map[string]string{
		"absolute form":          "GET http://gate" + busy + " HTTP/1.1\r\n" + proof + "\r\n",
		"authority form":         "CONNECT " + busy + " HTTP/1.1\r\n" + proof + "\r\n",
		"two slashes":            "GET /" + busy + " HTTP/1.1\r\n" + proof + "\r\n",
		"two slashes within":     "GET /gateway//calendar/calendars/a/busy HTTP/1.1\r\n" + proof + "\r\n",
		"an escape in the name":  "GET /gateway/c%61lendar/calendars/a/busy HTTP/1.1\r\n" + proof + "\r\n",
		"a parameter":            "GET /gateway/calendar;v=1/calendars/a/busy HTTP/1.1\r\n" + proof + "\r\n",
		"up from our own":        "GET /v1/../gateway/calendar/calendars/a/busy HTTP/1.1\r\n" + proof + "\r\n",
		"a fragment":             "GET " + busy + "#f HTTP/1.1\r\n" + proof + "\r\n",
		"a nought":               "GET /gateway/calendar/calendars/a%00b/busy HTTP/1.1\r\n" + proof + "\r\n",
		"a byte":                 "GET /gateway/calendar/calendars/\xff/busy HTTP/1.1\r\n" + proof + "\r\n",
		"another method's case":  "get " + busy + " HTTP/1.1\r\n" + proof + "\r\n",
		"TRACE":                  "TRACE " + busy + " HTTP/1.1\r\n" + proof + "\r\n",
		"two tokens":             "GET " + busy + " HTTP/1.1\r\n" + proof + "Authorization: Bearer x\r\n\r\n",
		"two assertions":         "GET " + busy + " HTTP/1.1\r\n" + proof + "X-Sallyport-Assertion: x\r\n\r\n",
		"two hosts":              "GET " + busy + " HTTP/1.1\r\n" + proof + "Host: other\r\n\r\n",
		"folded":                 "GET " + busy + " HTTP/1.1\r\n" + proof + "X-A: b\r\n c\r\nUpgrade: h2c\r\n\r\n",
		"an upgrade":             "GET " + busy + " HTTP/1.1\r\n" + proof + "Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
		"lengths":                post + "Content-Length: 3\r\nContent-Length: 4\r\n\r\na=b" + get,
		"other coding":           post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + get,
		"coding with a sign":     post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + get,
		"chunks that are none":   post + "Transfer-Encoding: chunked\r\n\r\n0x3\r\na=b\r\n0\r\n\r\n" + get,
		"in a refused body":      post + length("token=x&"+get),
		"behind a refused one":   post + length("token=x") + get,
		"in an unread body":      "POST /gateway/slack/x HTTP/1.1\r\n" + proof + form + length(get),
		"in one of our own":      "POST /v1/grants HTTP/1.1\r\n" + proof + length(get),
		"for nobody":             "POST /gateway/calendar/freeBusy HTTP/1.1\r\nHost: gate\r\n" + form + length(get),
		"a long expectation":     post + "Expect: 100-continue\r\nContent-Length: 2000000\r\n\r\n",
		"a token after the body": post + "Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n7\r\ntoken=x\r\n0\r\nX: y\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			before := len(peer.Requests())
			got := r.raw(raw)
			if !strings.HasPrefix(got, "HTTP/1.1 4") && !strings.HasPrefix(got, "HTTP/1.1 501") || strings.Count(got, "HTTP/1.1 ") != 1 {
				t.Errorf("answered %q", got)
			}
			if n := len(peer.Requests()) - before; n != 0 {
				t.Errorf("%d requests arrived: %q", n, peer.Requests()[before:])
			}
		})
	}
	// Chunks go before a length, and nothing is read behind them (RFC 9112 §6.3).
	got := r.raw(strings.Replace(post, "Host: gate", "Host: gate\r\nConnection: close", 1) +
		"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + get)
	if strings.Count(got, "HTTP/1.1 ") != 1 || bytes.HasPrefix(peer.Last(t), []byte("GET")) {
		t.Errorf("a length and chunks: %q", got)
	}
	if got := r.raw(strings.Replace(get, "Host: gate", "Host: gate\r\nConnection: close", 1)); !strings.HasPrefix(got,
		"HTTP/1.1 200") {
		t.Errorf("what is as it should be: %q", got)
	}
}

// Who announces a body and sends none of it is answered, whoever it is: net/http would wait for
// it before it sends an answer, without an end, and so would a stop.
func TestP17_ABodyThatNeverComesHoldsUpNoAnswerOfOurs(t *testing.T) {
	t.Parallel()
	r := newRig(t, "http://127.0.0.1:1")
	proof := "Authorization: Bearer " + appToken + "\r\nX-Sallyport-Assertion: " + r.assertion("planner") + "\r\n"
	for name, c := range map[string]struct{ head, proof string }{
		"the document": {"GET /v1/openapi.json", ""}, "a stranger": {"GET /v1/grants", ""},
		"an app": {"GET /v1/grants", proof}, "nothing there": {"POST /v1/nothing", proof},
		"refused": {"GET " + busy + "?token=x", proof}, "a stranger's question": {"POST /v1/token", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
			testenv.Check(t, err)
			t.Cleanup(func() { conn.Close() })
			testenv.Check(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
			_, err = io.WriteString(conn, c.head+" HTTP/1.1\r\nHost: gate\r\n"+c.proof+"Content-Length: 10\r\n\r\n")
			testenv.Check(t, err)
			answer, err := io.ReadAll(conn) // to its end: the connection is not used again
			if !strings.HasPrefix(string(answer), "HTTP/1.1 4") || err != nil {
				t.Errorf("%q, %v", answer, err)
			}
		})
	}
}

// An app that asks more than it may at a time is sent away, and nobody else notices: neither
// another app nor the third party. What it gives up is free again.
func TestP17_AnAppThatFloodsHoldsUpItselfAlone(t *testing.T) {
	const most, flood = 256, 300
	var asked atomic.Int64
	leave := make(chan struct{})
	peer := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		<-leave
	}))
	defer peer.Close()
	r := newRig(t, peer.URL)
	go func() {
		for t.Context().Err() == nil {
			<-r.events // the rig has room for few
		}
	}()
	r.connect("freebusy")
	statuses := make(chan int, flood)
	var all sync.WaitGroup
	for range flood {
		all.Go(func() {
			res, _ := r.ask("GET", busy, "")
			statuses <- res.StatusCode
		})
	}
	testenv.Within(t, time.Minute, "all but 256 are sent away", func() bool {
		return len(statuses) == flood-most && asked.Load() == most
	})
	for range flood - most {
		if status := <-statuses; status != 503 {
			t.Errorf("answered %d", status)
		}
	}
	res, body := r.ask("GET", "/v1/grants", "", "Authorization", "Bearer raw-"+appToken, "X-Sallyport-Assertion",
		r.assertion("raw"))
	if res.StatusCode != 200 {
		t.Errorf("another app: %d %s", res.StatusCode, body)
	}
	res, body = r.ask("GET", "/v1/grants", "")
	if p := problemOf(t, res, body); res.StatusCode != 503 || p.Type != "try-later" || res.Header.Get("Retry-After") == "" {
		t.Errorf("the app itself: %d %v %s", res.StatusCode, res.Header, body)
	}
	close(leave)
	all.Wait()
	for range most {
		if status := <-statuses; status != 200 {
			t.Errorf("answered %d", status)
		}
	}
	if res, body := r.ask("GET", "/v1/grants", ""); res.StatusCode != 200 || asked.Load() != most {
		t.Errorf("after that: %d %s, the third party was asked %d times", res.StatusCode, body, asked.Load())
	}
}

// A third party that hangs up while the app has yet to send the rest of a body: the app waits
// for an answer, and gets one.
func TestAThirdPartyThatHangsUpInAnUploadIsSeenAtOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testenv.Check(t, err)
	t.Cleanup(func() { _ = l.Close() })
	var calls atomic.Int32
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if in, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				calls.Add(1)
				_, _ = io.ReadFull(in.Body, make([]byte, 5))
			}
			_ = c.Close()
		}
	}()
	r := newRig(t, "http://"+l.Addr().String())
	r.connect("freebusy")
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	testenv.Check(t, err)
	defer c.Close()
	testenv.Check(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = io.WriteString(c, "POST /gateway/calendar/freeBusy HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer "+
		appToken+"\r\nX-Sallyport-Assertion: "+r.assertion("planner")+
		"\r\nContent-Type: application/octet-stream\r\nContent-Length: 100\r\n\r\nhello") // and waits
	testenv.Check(t, err)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	testenv.Check(t, err)
	defer res.Body.Close()
	if res.StatusCode != http.StatusBadGateway || calls.Load() != 1 {
		t.Errorf("answered %d after %d calls", res.StatusCode, calls.Load())
	}
}
